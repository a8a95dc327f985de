//! Chromium without a window, with one tab or several, driven over the two pipes of its DevTools protocol: messages are JSON, each behind a zero.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// Longer than a browser takes for anything here on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// Asks a pipe that is file descriptor 3 and answers on 4; its own output is nobody's.
const PIPED: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// A browser, of which one tab is told what to do at a time. Killed if the test does not close it.
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    messages: Receiver<Value>,
    /// Those that came while another was waited for.
    events: VecDeque<Value>,
    /// Its tabs; the last one is the one that is told.
    tabs: Vec<String>,
    last_id: u64,
    profile: PathBuf,
    /// What the page has complained about so far: exceptions, refused requests, breaches of its policy.
    pub complaints: Vec<String>,
}

impl Browser {
    /// None if none is installed, which is said.
    pub fn start() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let installed = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
            let mut command = Command::new(name);
            let silent =
                command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            silent.status().is_ok_and(|status| status.success())
        });
        let Some(name) = installed else {
            eprintln!("skipped: no chromium on this machine");
            return None;
        };
        let unique = format!("chromium-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique);
        let mut child = Command::new("sh")
            .args(["-c", PIPED, name, "--headless=new", "--remote-debugging-pipe", "--no-first-run"])
            // It sees our own pages only; its sandbox does not start as root, and containers have little shared memory.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
            // A tab that is not looked at goes on as one that is.
            .args(["--disable-background-timer-throttling", "--disable-renderer-backgrounding"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (heard, messages) = channel();
        thread::spawn(move || {
            let mut text = Vec::new();
            while output.read_until(0, &mut text).is_ok_and(|count| count > 0) {
                text.pop();
                let message = serde_json::from_slice(&text).unwrap();
                text.clear();
                if heard.send(message).is_err() {
                    break;
                }
            }
        });
        let (events, complaints) = (VecDeque::new(), Vec::new());
        let mut browser =
            Self { child, orders, messages, events, tabs: Vec::new(), last_id: 0, profile, complaints };
        browser.open_tab();
        Some(browser)
    }

    /// Opens another tab, which is told from now on.
    pub fn open_tab(&mut self) {
        let others = std::mem::take(&mut self.tabs);
        let target = self.order("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            self.order("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        self.tabs = others;
        self.tabs.push(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            self.order(&format!("{domain}.enable"), json!({}));
        }
    }

    /// From now on the other of two tabs is told.
    pub fn turn(&mut self) {
        self.tabs.rotate_left(1);
    }

    /// Loads a page and waits until it has been loaded.
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        let opened = self.order("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.message();
            self.notice(message);
        }
    }

    /// Makes the window so wide, a phone if it is narrow, and the light on or off.
    pub fn look(&mut self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.order("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.order("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What an expression comes to in the page. A promise is waited for.
    pub fn eval(&mut self, expression: &str) -> Value {
        let how = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.order("Runtime.evaluate", how);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits in the page until an expression is true.
    pub fn until(&mut self, expression: &str) {
        self.eval(&format!(
            "new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 10); look(); }})"
        ));
    }

    /// Presses and lets go of a key.
    pub fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            self.order("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key }));
        }
    }

    /// Ends it, and its profile.
    pub fn close(mut self) {
        self.tabs.clear();
        self.order("Browser.close", json!({}));
        let _ = self.child.wait();
    }

    fn order(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut order = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = self.tabs.last() {
            order["sessionId"] = json!(session);
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).unwrap();
        loop {
            let message = self.message();
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.notice(message);
        }
    }

    fn message(&mut self) -> Value {
        self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("chromium says nothing: {error}"))
    }

    fn notice(&mut self, message: Value) {
        let params = &message["params"];
        let is_complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].iter().any(|kind| params["type"] == *kind)
            }
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(params.to_string());
        }
        self.events.push_back(message);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has been closed, or the test has failed: nobody needs to know why this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
