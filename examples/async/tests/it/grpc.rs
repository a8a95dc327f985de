//! gRPC with Python's client, and with our own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::clients::{has_module, output, python};
use crate::support::{Program, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_grpc");

/// What the tests in Python share: the messages of `rooms.proto`, by hand, so that no compiler of them is needed.
const MESSAGES: &str = r#"
import sys, threading
import grpc

def text(tag, value):
    return bytes([tag << 3 | 2, len(value)]) + value.encode()

def number(value):
    out = b''
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])

def line(room, said, after=0):
    return text(1, room) + text(2, said) + (b'\x18' + number(after) if after else b'')

def said(message):
    assert message[0] == 2 << 3 | 2 or message[0] == 1 << 3 | 2, message
    fields, at = {}, 0
    while at < len(message):
        tag, length = message[at] >> 3, message[at + 1]
        fields[tag], at = message[at + 2:at + 2 + length].decode(), at + 2 + length
    return fields[2]

raw = lambda message: message
channel = grpc.insecure_channel(sys.argv[1])
say = channel.unary_unary('/rooms.v1.Rooms/Say', raw, raw)
listen = channel.unary_stream('/rooms.v1.Rooms/Listen', raw, raw)
shout = channel.stream_stream('/rooms.v1.Rooms/Shout', raw, raw)

def fails(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
    else:
        raise AssertionError(f'no {code}')
"#;

fn grpcio(script: &str, program: &Program) -> String {
    python(&format!("{MESSAGES}\n{script}"), &[&program.addr.to_string()])
}

fn start() -> Program {
    Program::start(PROGRAM, &["serve", "127.0.0.1:0"])
}

fn ours(program: &Program, verb: &str, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args([verb, &program.addr.to_string()]).args(words);
    command
}

#[test]
fn pythons_client_calls_and_is_told_what_is_wrong() {
    if !has_module("grpc") {
        return;
    }
    let program = start();
    let script = "
for count in range(1, 4):
    assert say(line('tea', 'hello')) == b'\\x08' + bytes([count])
assert say(line('coffee', 'x' * 100)) == b'\\x08\\x01'
fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: say(line('tea', '')))
nothing = channel.unary_unary('/rooms.v1.Rooms/Nothing', raw, raw)
fails(grpc.StatusCode.UNIMPLEMENTED, lambda: nothing(b''))
threads = [threading.Thread(target=lambda: [say(line('many', 'x')) for _ in range(50)]) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert say(line('many', 'x')) == b'\\x08' + number(201)
print('called')
";
    assert_eq!(grpcio(script, &program), "called\n");
    assert!(program.terminate().1.success());
}

#[test]
fn streams_go_both_ways_until_the_client_has_enough() {
    if !has_module("grpc") {
        return;
    }
    let program = start();
    let script = "
lines = [line('r', word * 20) for word in ['hot', 'and', 'sweet']] * 100
answers = [said(answer) for answer in shout(iter(lines))]
assert answers == ['HOT' * 20, 'AND' * 20, 'SWEET' * 20] * 100, answers[:3]

heard = listen(text(1, 'tea'))
heard.initial_metadata()
for word in ['one', 'two', 'three']:
    say(line('tea', word))
assert [said(next(heard)) for _ in range(3)] == ['one', 'two', 'three']
heard.cancel()
fails(grpc.StatusCode.CANCELLED, lambda: next(heard))
# Who has left does not hear, and holds nobody up.
for _ in range(200):
    say(line('tea', 'again'))
print('heard')
";
    assert_eq!(grpcio(script, &program), "heard\n");
    assert!(program.terminate().1.success());
}

#[test]
fn a_call_ends_with_its_deadline_before_and_behind_the_begin_of_its_answer() {
    if !has_module("grpc") {
        return;
    }
    let program = start();
    // The client's own timeout is far longer than that which it writes into the header: so it is the server that ends the call.
    let script = "
late = (('grpc-timeout', '100m'),)
def details(call):
    try:
        call()
    except grpc.RpcError as error:
        return (error.code(), error.details())
deadline = (grpc.StatusCode.DEADLINE_EXCEEDED, 'the time that the client has given has passed')
assert details(lambda: say(line('a', 'x', 3600000), metadata=late)) == deadline
heard = listen(text(1, 'quiet'), metadata=late)
assert details(lambda: next(heard)) == deadline
assert say(line('a', 'x', 1), timeout=60) == b'\\x08\\x01'
fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: say(line('a', 'x', 3600000), timeout=0.1))
print('in time')
";
    let begun = Instant::now();
    assert_eq!(grpcio(script, &program), "in time\n");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(program.terminate().1.success());
}

#[test]
fn our_client_does_what_its_first_comment_says() {
    let program = start();
    assert_eq!(output(&mut ours(&program, "say", &["tea", "hello"])), "1\n");
    assert_eq!(output(&mut ours(&program, "say", &["tea", "hello", "--after", "20"])), "2\n");
    let (code, printed, errors) =
        run(&mut ours(&program, "say", &["tea", "x", "--after", "3600000", "--timeout", "50"]));
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(errors.contains("DeadlineExceeded"), "{errors}");
    assert_eq!(output(&mut ours(&program, "shout", &["hot", "and", "sweet"])), "HOT\nAND\nSWEET\n");

    let mut listener = ours(&program, "listen", &["tea"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "listening");
    output(&mut ours(&program, "say", &["tea", "psst"]));
    assert_eq!(lines.next().unwrap(), "psst");
    // A drain ends what would go on for ever, well.
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
    assert_eq!(lines.next(), None);
    assert!(listener.wait().unwrap().success());
}
