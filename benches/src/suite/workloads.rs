//! What the contestants have to do.

/// How a workload speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Http,
    Echo,
}

/// One load, the same for all contestants.
pub struct Workload {
    /// As in `--only`, and in file names.
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
    /// What a contestant has to be able to do, as in peers.json.
    pub needs: &'static str,
    pub path: &'static str,
    /// Of the load client.
    pub options: &'static str,
    /// Requests come at their own times, not when the answers allow it: latency is the figure.
    pub is_open_loop: bool,
    /// Part of `--quick`.
    pub is_quick: bool,
}

const fn http(
    name: &'static str,
    title: &'static str,
    needs: &'static str,
    path: &'static str,
    options: &'static str,
) -> Workload {
    Workload { name, title, kind: Kind::Http, needs, path, options, is_open_loop: false, is_quick: false }
}

const fn quick(workload: Workload) -> Workload {
    Workload { is_quick: true, ..workload }
}

const fn echo(name: &'static str, title: &'static str, options: &'static str) -> Workload {
    Workload {
        name,
        title,
        kind: Kind::Echo,
        needs: name,
        path: "",
        options,
        is_open_loop: false,
        is_quick: false,
    }
}

/// All of them, in the order of the report.
pub const WORKLOADS: [Workload; 10] = [
    quick(http(
        "plaintext-64",
        "Plaintext, 64 connections",
        "plaintext",
        "/plaintext",
        "--connections 64 --spin",
    )),
    http(
        "plaintext-512",
        "Plaintext, 512 connections",
        "plaintext",
        "/plaintext",
        "--connections 512 --spin",
    ),
    quick(http(
        "pipelined-64",
        "Plaintext, 64 connections, 16 pipelined",
        "pipelined",
        "/plaintext",
        "--connections 64 --depth 16 --spin",
    )),
    quick(http("json-64", "JSON, 64 connections", "json", "/json", "--connections 64 --spin")),
    http("json-512", "JSON, 512 connections", "json", "/json", "--connections 512 --spin"),
    quick(http(
        "post-1k",
        "POST with 1 KiB of JSON, echoed, 64 connections",
        "post",
        "/echo",
        "--connections 64 --post 1024 --spin",
    )),
    http(
        "churn",
        "Plaintext, a new connection for each request, 16 at once",
        "churn",
        "/plaintext",
        "--connections 16 --churn --spin --sources 100",
    ),
    Workload {
        is_open_loop: true,
        ..http(
            "open-loop",
            "Plaintext, 20 000 requests a second at even intervals, 64 connections",
            "plaintext",
            "/plaintext",
            "--connections 64 --rate 20000 --spin",
        )
    },
    quick(echo("echo-64", "TCP echo, 64 B, 100 connections", "--connections 100 --echo 64 --spin")),
    echo("echo-4096", "TCP echo, 4 KiB, 100 connections", "--connections 100 --echo 4096 --spin"),
];
