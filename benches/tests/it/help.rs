//! Every program explains its options.

use std::process::Command;

#[test]
fn every_program_explains_its_options_and_ends_well() {
    for (program, option) in [
        (env!("CARGO_BIN_EXE_load"), "`--connections` [64]"),
        (env!("CARGO_BIN_EXE_floor"), "--port"),
        (env!("CARGO_BIN_EXE_checks"), "`--rounds` [61]"),
        (env!("CARGO_BIN_EXE_suite"), "`--compare DIR DIR`"),
        (env!("CARGO_BIN_EXE_claims"), "`--json`"),
        (env!("CARGO_BIN_EXE_conformance"), "--verbose"),
        (env!("CARGO_BIN_EXE_stores"), "`--pipeline` [16]"),
        (env!("CARGO_BIN_EXE_rings"), "`--rate` [20000]"),
        (env!("CARGO_BIN_EXE_ends"), "`--only restart,handover,proxy,memory,slots,refusal`"),
    ] {
        for asked in ["--help", "-h"] {
            let output = Command::new(program).arg(asked).output().expect("it starts");
            let text = String::from_utf8(output.stdout).expect("a text");
            assert!(output.status.success() && text.contains(option), "{program}: {text}");
            assert!(!text.contains("//!") && !text.contains("fn main"), "{program}: {text}");
        }
    }
}
