//! Forms come to the same parts however they are cut, and what could be read in two ways is refused.

use proptest::prelude::*;

use super::MultipartLimits;
use super::head::PartHead;
use super::parser::{Parser, Step, Violation, is_boundary};

/// A part: what it says of itself, its data, and whether its end was seen.
type Seen = (PartHead, Vec<u8>, bool);

fn read(
    bytes: &[u8],
    cuts: &mut dyn Iterator<Item = usize>,
    limits: MultipartLimits,
) -> (Vec<Seen>, Result<(), Violation>) {
    let mut parser = Parser::new(b"x", limits);
    let (mut parts, mut rest): (Vec<Seen>, _) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (mut chunk, behind) = rest.split_at(cuts.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = behind;
        loop {
            match parser.next(&mut chunk) {
                Ok(Some(Step::Part(head))) => parts.push((head, Vec::new(), false)),
                Ok(Some(Step::Data(data) | Step::Held(data))) => {
                    assert!(!data.is_empty());
                    parts.last_mut().expect("a part").1.extend_from_slice(data);
                }
                Ok(Some(Step::PartEnd)) => parts.last_mut().expect("a part").2 = true,
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(parser.next(&mut &b"--x--"[..]), Err(violation), "and no other from then on");
                    assert_eq!(parser.finish(), Err(violation));
                    return (parts, Err(violation));
                }
            }
        }
        assert!(chunk.is_empty());
    }
    (parts, parser.finish())
}

fn whole(bytes: &[u8]) -> Result<Vec<(PartHead, Vec<u8>)>, Violation> {
    let (parts, end) = read(bytes, &mut std::iter::empty(), MultipartLimits::default());
    end.map(|()| parts.into_iter().map(|(head, data, _)| (head, data)).collect())
}

fn part(disposition: &str, data: &str) -> String {
    format!("--x\r\nContent-Disposition: {disposition}\r\n\r\n{data}\r\n")
}

fn head(name: &str, filename: Option<&str>, content_type: Option<&str>) -> PartHead {
    let owned = |text: &str| text.to_owned();
    PartHead { name: owned(name), filename: filename.map(owned), content_type: content_type.map(owned) }
}

#[test]
fn a_form_is_its_parts_in_order() {
    let file = "--x\r\nContent-Type: image/jpeg\r\ncontent-disposition:form-data;filename=\"a b.jpg\" ; name = x\r\n\r\n";
    let bad = format!("{file}..\r\n--x--");
    assert!(whole(bad.as_bytes()).is_err(), "no blanks around an equals sign");
    let file = file.replace("name = x", "name=x");
    let form = part("form-data; name=\"title\"", "tea")
        + &part("form-data; name=e", "")
        + &file
        + "\r\n--x \r\n--x--\r\n";
    let expected = vec![
        (head("title", None, None), b"tea".to_vec()),
        (head("e", None, None), vec![]),
        (head("x", Some("a b.jpg"), Some("image/jpeg")), vec![]),
    ];
    assert_eq!(
        whole(form.as_bytes()),
        Err(Violation::Malformed("a boundary is followed by neither a line end nor two dashes"))
    );
    assert_eq!(whole(form.replace("--x \r\n", "").as_bytes()), Ok(expected));
    assert_eq!(whole(b"--x--"), Ok(vec![]), "a form without parts");
    assert_eq!(whole(b"--x--\r\n"), Ok(vec![]));
}

#[test]
fn data_may_look_like_a_boundary_up_to_its_last_byte() {
    for data in [
        "\r",
        "\r\n",
        "\r\n-",
        "\r\n--",
        "\r\n--\r\n--",
        "\r\r\n--y",
        "--x",
        "--x--",
        "\n--x\r",
        "\r\n\r\n--\r",
    ] {
        let form = part("form-data; name=a", data) + "--x--";
        assert_eq!(
            whole(form.as_bytes()),
            Ok(vec![(head("a", None, None), data.as_bytes().to_vec())]),
            "{data:?}"
        );
    }
}

#[test]
fn names_may_have_quotes_in_them_as_browsers_and_others_write_them() {
    for (disposition, name, filename) in [
        ("form-data; name=\"a%22b\"", "a\"b", None),
        ("form-data; name=\"a\\\"b\\\\c\\d\"", "a\"b\\c\\d", None),
        ("form-data; name=\"\u{e9}\"; filename=\"\"", "\u{e9}", Some("")),
        ("Form-Data; NAME=a; other=\"; name=b\"", "a", None),
        (
            "form-data; name=\"../../etc/passwd\"; filename=\"C:\\a.txt\"",
            "../../etc/passwd",
            Some("C:\\a.txt"),
        ),
        ("form-data; name=\"a%0D%0Ab\"", "a%0D%0Ab", None),
    ] {
        let form = part(disposition, "") + "--x--";
        assert_eq!(whole(form.as_bytes()), Ok(vec![(head(name, filename, None), vec![])]), "{disposition}");
    }
}

#[test]
fn what_clients_are_known_to_write_beside_the_rules_and_is_read_in_one_way_is_read() {
    // Unity begins with the line end of each delimiter, that of the first as well: a preamble of nothing.
    let form = format!("\r\n{}--x--", part("form-data; name=a", "1"));
    let a = head("a", None, None);
    assert_eq!(whole(form.as_bytes()), Ok(vec![(a, b"1".to_vec())]));
    assert_eq!(whole(b"\r\n--x--"), Ok(vec![]));
    // .NET says the name of a file twice.
    for (disposition, filename) in [
        ("form-data; name=a; filename=b.txt; filename*=utf-8''b.txt", "b.txt"),
        ("form-data; filename*=UTF-8'en'a%20%62; name=a; filename=\"a b\"", "a b"),
        ("form-data; name=a; filename=\"\u{e9}%22\"; filename*=utf-8''%C3%a9%22", "\u{e9}\""),
    ] {
        let form = part(disposition, "") + "--x--";
        let seen = whole(form.as_bytes());
        assert_eq!(seen, Ok(vec![(head("a", Some(filename), None), vec![])]), "{disposition}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for disposition in [
        "form-data",
        "attachment; name=a",
        "form-data; name=a; name=b",
        "form-data; name=a; filename=b; filename=c",
        "form-data; name=a; filename*=utf-8''b",
        "form-data; name=a; filename=b; filename*=utf-8''c",
        "form-data; name=a; filename=b; filename*=utf-8''b; filename*=utf-8''b",
        "form-data; name=a; filename=b; filename*=iso-8859-1''b",
        "form-data; name=a; filename=b; filename*=b",
        "form-data; name=a; filename=b; filename*=\"utf-8''b\"; x=\"",
        "form-data; name=a; filename=\"%\"; filename*=utf-8''%",
        "form-data; name=a; filename=\"\u{fffd}\"; filename*=utf-8''%ff",
        "form-data; name=",
        "form-data; name=\"a",
        "form-data; name=\"a\"b",
        "form-data name=a",
        "form-data; =a",
        "form-data; name=a\r\nContent-Disposition: form-data; name=b",
        "form-data; name=a\r\n folded",
        "form-data; name=a\r\nno colon",
        "form-data; name=a\r\n: empty",
        "form-data; name=a\r\nX Y: z",
        "form-data; name=a\r\nX: \u{1}",
        "form-data; name=a\nX: z",
        "form-data; name=a\rX: z",
        "form-data; name=a\r\nContent-Transfer-Encoding: base64",
        "form-data; name=a\r\nContent-Type: a\r\nContent-Type: b",
    ] {
        let form = part(disposition, "") + "--x--";
        assert!(matches!(whole(form.as_bytes()), Err(Violation::Malformed(_))), "{disposition:?}");
    }
    let one = part("form-data; name=a", "1");
    for form in [
        String::new(),
        "\r\n\r\n--x--".to_owned(),
        "\n--x--".to_owned(),
        "\r--x--".to_owned(),
        "\r\n".to_owned(),
        format!("preamble\r\n{one}--x--"),
        format!("{one}--x--\r\nepilogue"),
        format!("{one}--x--\n"),
        format!("{one}--x-"),
        one.clone(),
        format!("{one}--xy--"),
        format!("{one}--x\n"),
        "--x\r\n\r\ndata\r\n--x--".to_owned(),
    ] {
        assert!(matches!(whole(form.as_bytes()), Err(Violation::Malformed(_))), "{form:?}");
    }
    assert!(whole(b"--x\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\n\r\n--x--").is_err());
    let plain = part("form-data; name=a\r\nContent-Transfer-Encoding: 8bit", "1") + "--x--";
    assert!(whole(plain.as_bytes()).is_ok());
}

#[test]
fn a_boundary_is_what_the_rfc_lets_be_one() {
    assert!(
        is_boundary(b"----WebKitFormBoundary7MA4YWxk") && is_boundary(b"a b") && is_boundary(&[b'a'; 70])
    );
    for boundary in [&b""[..], b"a ", b"a\r\n", b"\"", b"a;b", &[b'a'; 71], "\u{e9}".as_bytes()] {
        assert!(!is_boundary(boundary), "{boundary:?}");
    }
}

#[test]
fn each_limit_is_reached_where_it_says() {
    let form = part("form-data; name=a", "12345") + &part("form-data; name=b", "1") + "--x--";
    let limits = MultipartLimits::default();
    let end = |limits| read(form.as_bytes(), &mut std::iter::repeat(3), limits).1;
    let head_bytes = "Content-Disposition: form-data; name=a\r\n\r\n".len();
    for (fits, does_not) in [
        (limits.parts_max(2), limits.parts_max(1)),
        (limits.part_bytes_max(5), limits.part_bytes_max(4)),
        (limits.header_bytes_max(head_bytes), limits.header_bytes_max(head_bytes - 1)),
        (limits.bytes_max(form.len() as u64), limits.bytes_max(form.len() as u64 - 1)),
    ] {
        assert_eq!(end(fits), Ok(()));
        assert!(matches!(end(does_not), Err(Violation::TooLarge(_))), "{does_not:?}");
    }
}

proptest! {
    #[test]
    fn any_cuts_come_to_the_same(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "--x", "\r\n--x", "\r\n", "--", "-", "\r", "\n", "a", "Content-Disposition: form-data; name=a\r\n\r\n",
                "X: y\r\n", "\r\n--x\r\nContent-Disposition: form-data; name=\"b\"; filename=c\r\n\r\n", "\r\n--x--", "data",
            ]),
            0..14,
        ),
        begins in any::<bool>(),
        cuts in prop::collection::vec(1_usize..9, 0..60),
        part_bytes_max in prop::sample::select(vec![0, 3, u64::MAX]),
        bytes_max in prop::sample::select(vec![40, 100, u64::MAX]),
    ) {
        let first = "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n";
        let form = if begins { first.to_owned() } else { String::new() } + &pieces.concat();
        let limits = MultipartLimits::default().part_bytes_max(part_bytes_max).bytes_max(bytes_max).parts_max(3);
        let uncut = read(form.as_bytes(), &mut std::iter::empty(), limits);
        prop_assert_eq!(&read(form.as_bytes(), &mut std::iter::repeat(1), limits), &uncut);
        prop_assert_eq!(&read(form.as_bytes(), &mut cuts.into_iter(), limits), &uncut);
    }

    #[test]
    fn what_is_written_is_what_is_read(
        parts in prop::collection::vec(("[a-z]{1,5}", prop::collection::vec(prop::sample::select(b"\r\n-xab".to_vec()), 0..40)), 0..6),
        cuts in prop::collection::vec(1_usize..30, 0..60),
    ) {
        let mut form = Vec::new();
        for (name, data) in &parts {
            form.extend_from_slice(format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes());
            form.extend_from_slice(data);
            form.extend_from_slice(b"\r\n");
        }
        form.extend_from_slice(b"--x--\r\n");
        prop_assume!(parts.iter().all(|(_, data)| !data.windows(5).any(|window| window == b"\r\n--x")));
        let (seen, end) = read(&form, &mut cuts.into_iter(), MultipartLimits::default());
        prop_assert_eq!(end, Ok(()));
        let seen: Vec<_> = seen.into_iter().map(|(head, data, ended)| { assert!(ended); (head.name, data) }).collect();
        prop_assert_eq!(seen, parts);
    }
}
