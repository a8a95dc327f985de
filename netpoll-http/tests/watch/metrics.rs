//! What `/metrics` shows.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use netpoll_http::{AccessLog, App, LogFormat, Method, Metrics, Request, Router, StatusCode, TestClient};

fn router(metrics: &Metrics) -> Router {
    Router::new()
        .get("/orders/{id}", |req: &Request| req.param::<u64>("id").map(|id| id.to_string()))
        .get("/slow", async |_: Request| {
            netpoll_core::time::sleep(Duration::from_millis(40)).await;
            "at last"
        })
        .get("/broken", |_: &Request| StatusCode::BAD_GATEWAY)
        .get("/for_ever", async |_: Request| std::future::pending::<()>().await)
        .get("/\"quoted\\\"", |_: &Request| "quoted")
        .get("/metrics", metrics.handler())
}

fn measured(metrics: &Metrics) -> TestClient {
    let shown = metrics.clone();
    App::new(move |_| router(&shown)).on_complete(metrics.hook()).test()
}

/// The value of a sample.
#[track_caller]
fn value(page: &str, sample: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {page}")).parse().expect("a number")
}

#[test]
fn requests_are_counted_by_route_and_class_and_never_by_path() {
    let metrics = Metrics::new();
    let client = measured(&metrics);
    for id in 0..300 {
        client.get(&format!("/orders/{id}"));
        client.get(&format!("/nowhere/{id}"));
    }
    client.get("/orders/x");
    client.get("/broken");
    let page = metrics.text();
    let count = |labels: &str| value(&page, &format!("netpoll_http_requests_total{{{labels}}}"));
    assert_eq!(count(r#"route="/orders/{id}",class="2xx""#), 300.0);
    assert_eq!(count(r#"route="/orders/{id}",class="4xx""#), 1.0);
    assert_eq!(count(r#"route="/broken",class="5xx""#), 1.0);
    assert_eq!(count(r#"route="-",class="4xx""#), 300.0);
    assert_eq!(value(&page, r#"netpoll_http_refused_total{reason="not_found"}"#), 300.0);
    assert_eq!(value(&page, r#"netpoll_http_outcomes_total{outcome="answered"}"#), 302.0);
    assert!(!page.contains("/nowhere"), "paths are no labels");
    assert!(value(&page, r#"netpoll_http_sent_bytes_total{route="/orders/{id}"}"#) > 300.0 * 100.0);
    assert!(value(&page, r#"netpoll_http_received_bytes_total{route="/orders/{id}"}"#) > 300.0 * 30.0);
}

#[test]
fn times_are_in_a_histogram_of_each_route() {
    let metrics = Metrics::new();
    let client = measured(&metrics);
    client.get("/orders/7");
    for _ in 0..3 {
        let mut connection = client.connect();
        connection.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        connection.advance(Duration::from_millis(40));
        assert!(connection.response().is_some());
    }
    let mut left = client.connect();
    left.send(b"GET /for_ever HTTP/1.1\r\nHost: a\r\n\r\n");
    left.close();
    client.run();
    let page = metrics.text();
    let sample = |suffix: &str, labels: &str| {
        value(&page, &format!("netpoll_http_request_duration_seconds_{suffix}{{{labels}}}"))
    };
    assert_eq!(sample("bucket", r#"route="/orders/{id}",le="0.0001""#), 1.0, "within a turn");
    assert_eq!(sample("bucket", r#"route="/slow",le="0.025""#), 0.0);
    assert_eq!(sample("bucket", r#"route="/slow",le="0.05""#), 3.0);
    assert_eq!(sample("bucket", r#"route="/slow",le="+Inf""#), 3.0);
    assert_eq!(sample("count", r#"route="/slow""#), 3.0);
    assert!((sample("sum", r#"route="/slow""#) - 0.12).abs() < 0.01);
    assert_eq!(value(&page, r#"netpoll_http_requests_total{route="/for_ever",class="none"}"#), 1.0);
    assert_eq!(sample("count", r#"route="/for_ever""#), 0.0, "who leaves has no time");
}

#[test]
fn figures_of_workers_of_the_process_and_of_the_log_are_there() {
    let log = AccessLog::to(std::io::sink(), LogFormat::Common).expect("a thread");
    let metrics = Metrics::new().log(&log);
    let client = measured(&metrics);
    client.get("/orders/7");
    let page = client.get("/metrics").text().to_owned();
    assert!(value(&page, r#"netpoll_worker_requests_total{worker="0"}"#) >= 1.0);
    assert_eq!(value(&page, r#"netpoll_log_lines_lost_total{level="usual"}"#), 0.0);
    assert_eq!(value(&page, "netpoll_log_lines_sampled_out_total"), 0.0);
    assert!(value(&page, "process_resident_memory_bytes") > 1e6);
    assert!(value(&page, "process_open_fds") >= 3.0);
    assert!(value(&page, "process_start_time_seconds") > 1.6e9);
    assert!(
        page.contains("\nprocess_cpu_seconds_total ")
            && page.contains("# TYPE netpoll_worker_busy_seconds_total counter")
    );
}

#[test]
fn workers_count_apart_and_are_added_up() {
    let metrics = Metrics::new();
    let shown = metrics.clone();
    let options = netpoll_core::sim::Options::default().workers(3);
    let client = App::new(move |_| router(&shown)).on_complete(metrics.hook()).test_with(options);
    for worker in 0..3 {
        let mut connection = client.connect_to(worker);
        connection.send(b"GET /orders/7 HTTP/1.1\r\nHost: a\r\n\r\n");
        connection.received();
    }
    let page = metrics.text();
    assert_eq!(value(&page, r#"netpoll_http_requests_total{route="/orders/{id}",class="2xx"}"#), 3.0);
    for worker in 0..3 {
        assert!(value(&page, &format!("netpoll_worker_accepted_total{{worker=\"{worker}\"}}")) >= 1.0);
    }
}

#[test]
fn who_accepts_openmetrics_gets_it_and_others_the_classic_format() {
    let metrics = Metrics::new();
    let client = measured(&metrics);
    let classic = client.get("/metrics");
    assert_eq!(classic.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(classic.text().contains("# TYPE netpoll_http_requests_total counter\n"));
    assert!(!classic.text().contains("# EOF"));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let open = client.request(Method::GET, "/metrics").header("Accept", accept).send();
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(media_type));
    assert!(
        open.text().contains("# TYPE netpoll_http_requests counter\n") && open.text().ends_with("\n# EOF\n")
    );
    assert!(open.text().contains("\nnetpoll_http_requests_total{"));
}

#[test]
fn who_likes_the_classic_format_better_gets_it_and_names_are_read_as_a_whole() {
    let metrics = Metrics::new();
    let client = measured(&metrics);
    let is_open = |accept: &str| {
        let page = client.request(Method::GET, "/metrics").header("Accept", accept).send();
        let is_open =
            page.header("content-type").is_some_and(|name| name.starts_with("application/openmetrics"));
        assert_eq!(page.text().ends_with("# EOF\n"), is_open, "{accept}");
        is_open
    };
    for accept in [
        // Prometheus 3, and what others send.
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
         application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
         text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        "Application/OpenMetrics-Text; Version=\"1.0.0\"",
        "text/plain, application/openmetrics-text",
        "text/plain;q=0.1, */*;q=0.9, application/openmetrics-text;q=0.2",
    ] {
        assert!(is_open(accept), "{accept}");
    }
    for accept in [
        "application/openmetrics-text;q=0, text/plain",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=0.1,text/plain;version=0.0.4;q=0.9",
        "application/openmetrics-text;q=0.1, */*",
        "application/openmetrics-text;version=2.0.0",
        "application/openmetrics-text-of-another-kind",
        "application/openmetrics-text;q=x",
        "application/*",
        "text/html,application/xhtml+xml,*/*;q=0.8",
        "",
    ] {
        assert!(!is_open(accept), "{accept}");
    }
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let metrics = Metrics::new();
    let client = measured(&metrics);
    for path in ["/orders/7", "/orders/x", "/nowhere", "/broken", "/%22quoted%5C%22", "/\"quoted\\\""] {
        client.get(path);
    }
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Ok(promtool) => promtool,
        Err(error) => return println!("skipped: promtool (of the package prometheus): {error}"),
    };
    let page = client.get("/metrics").text().to_owned();
    promtool.stdin.take().expect("it was asked for").write_all(page.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
