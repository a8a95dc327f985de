//! Knowledge only points down, and unsafe stays behind its door.
//!
//! Reads the sources of both crates: every `crate::room` that a file names must lie on a lower floor
//! than the file's own room. See the table in docs/ARCHITECTURE.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms of netpoll-core and their floors. Rooms on one floor do not know each other.
const CORE: &[(&str, u8)] = &[
    ("sys", 0),
    ("log", 0),
    ("mem", 1),
    ("clockwork", 1),
    ("driver", 2),
    ("reactor", 3),
    ("task", 3),
    ("conn", 4),
    ("signal", 4),
    ("sync", 4),
    ("time", 4),
    ("net", 5),
    ("tls", 5),
    ("blocking", 5),
    ("runtime", 6),
    ("bridge", 7),
];

/// Rooms of netpoll-http and their floors.
const HTTP: &[(&str, u8)] = &[
    ("log", 7),
    ("wire", 7),
    ("coding", 7),
    ("message", 8),
    ("ws", 8),
    ("h1", 9),
    ("h2", 10),
    ("handler", 10),
    ("layer", 10),
    ("events", 11),
    ("files", 11),
    ("multipart", 11),
    ("router", 11),
    ("websocket", 12),
    ("test", 12),
    ("server", 13),
    ("health", 14),
    ("rooms", 14),
    ("watch", 14),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the source folder is there") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of).join("src")
}

/// The room that a file belongs to: its first folder, or its own name.
fn room(src: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(src).expect("a file of this crate");
    let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").trim_end_matches("_tracing").to_owned()
}

/// The rooms that code names by `crate::room`, also inside `use crate::{a, b::c}`; comments do not count.
fn named(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut rooms = Vec::new();
    for (position, _) in code.match_indices("crate::") {
        if code[..position].ends_with('$') {
            continue;
        }
        let rest = &code[position + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(letter),
                    _ => {}
                }
            }
            rooms.push(name);
        } else {
            rooms.push(rest.to_owned());
        }
    }
    let first = |path: String| {
        let path = path.trim_start();
        let end = path.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(path.len());
        // A macro lives at the crate root, wherever it is written.
        (!path[end..].starts_with('!')).then(|| path[..end].to_owned())
    };
    rooms.into_iter().filter_map(first).collect()
}

fn upward_arrows(src: &Path, floors: &[(&str, u8)]) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = floors.iter().copied().collect();
    let mut arrows = Vec::new();
    for file in sources(src) {
        let own = room(src, &file);
        if own == "lib" {
            continue;
        }
        let floor = *floors.get(own.as_str()).unwrap_or_else(|| panic!("room `{own}` has no floor"));
        let text = fs::read_to_string(&file).expect("a readable source");
        for other in named(&text) {
            // Names that are not rooms are re-exports of the crate root, which any floor could hide behind.
            let Some(its) = floors.get(other.as_str()) else {
                if other.chars().next().is_some_and(char::is_lowercase) {
                    arrows.push(format!("{}: crate::{other} is no room", file.display()));
                }
                continue;
            };
            if *its >= floor && other != own {
                arrows.push(format!("{}: {own} ({floor}) names {other} ({its})", file.display()));
            }
        }
    }
    arrows
}

#[test]
fn no_arrow_points_up_in_the_core() {
    assert_eq!(upward_arrows(&folder("netpoll-core"), CORE), Vec::<String>::new());
}

#[test]
fn no_arrow_points_up_in_the_http_layer() {
    assert_eq!(upward_arrows(&folder("netpoll-http"), HTTP), Vec::<String>::new());
}

#[test]
fn unsafe_code_lives_behind_its_doors_only() {
    let ring = folder("netpoll-core").join("driver/uring");
    for file in sources(&folder("netpoll-core")) {
        let text = fs::read_to_string(&file).expect("a readable source");
        let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
        let opens = code.filter(|line| line.contains("unsafe ") && !line.contains("unsafe_code")).count();
        let own = room(&folder("netpoll-core"), &file);
        assert!(opens == 0 || own == "sys" || file.starts_with(&ring), "{} has unsafe code", file.display());
    }
    let http = fs::read_to_string(folder("netpoll-http").join("lib.rs")).expect("a readable source");
    assert!(http.contains("#![forbid(unsafe_code)]"));
}

/// Where code may ask which system it is compiled for: what differs has one name in `sys`, and a driver and its choice are files.
const KNOW_THE_SYSTEM: &[&str] =
    &["sys/", "driver/mod.rs", "driver/poll/mod.rs", "runtime/backend.rs", "lib.rs"];

#[test]
fn only_sys_and_the_choice_of_a_driver_know_which_system_it_is() {
    for of in ["netpoll-core", "netpoll-http"] {
        let src = folder(of);
        for file in sources(&src) {
            let name = file.strip_prefix(&src).expect("a file of this crate").to_string_lossy().into_owned();
            let text = fs::read_to_string(&file).expect("a readable source");
            let asks = text.lines().filter(|line| {
                let line = line.split("//").next().unwrap_or("");
                let asks =
                    ["target_os", "target_vendor", "netpoll_portable"].iter().any(|word| line.contains(word));
                // Tests of what only one driver can do.
                asks && !line.contains("cfg(all(test, ")
            });
            let may = of == "netpoll-core" && KNOW_THE_SYSTEM.iter().any(|room| name.starts_with(room));
            assert_eq!(if may { 0 } else { asks.count() }, 0, "{of}/src/{name} asks for the system");
        }
    }
}

#[test]
fn the_reader_of_arrows_sees_them() {
    let text = "use crate::{conn, runtime::{Builder, Handle}, mem::Key};\n// crate::comment\nlet x = crate::sys::recv;";
    assert_eq!(named(text), ["conn", "runtime", "mem", "sys"]);
}
