//! An HTTP client of hyper in tasks of netpoll: connections that are kept, requests at the same time, timeouts.
//!
//! Run it with `cargo run --release -p async-examples --bin hyper_client -- http://127.0.0.1:8000/`, behind it more URLs, `--times N` for N
//! requests of each, `--at-once N` for so many under way at the same time, `--timeout MS` for each. You will see the status and the length of each
//! answer, in the order of the URLs, and by how many connections they came. The exit code is 1 if one did not.

mod pool;

use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use http::Uri;
use netpoll_core::{Backend, Runtime};

use crate::pool::Pool;

const HELP: &str = "hyper_client [--times N] [--at-once N] [--timeout MS] [--backend NAME] URL..";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use lexopt::prelude::*;

    let (mut urls, mut times, mut at_once) = (Vec::<Uri>::new(), 1, 1);
    let (mut patience, mut backend) = (Duration::from_secs(10), Backend::Auto);
    let mut words = lexopt::Parser::from_env();
    while let Some(word) = words.next()? {
        match word {
            Long("times") => times = words.value()?.parse()?,
            Long("at-once") => at_once = words.value()?.parse()?,
            Long("backend") => backend = words.value()?.parse()?,
            Long("timeout") => patience = Duration::from_millis(words.value()?.parse()?),
            Value(url) => urls.push(url.parse()?),
            _ => return Err(HELP.into()),
        }
    }
    if urls.is_empty() {
        return Err(HELP.into());
    }
    let failures = Runtime::builder().backend(backend).block_on(async move {
        let pool = Rc::new(Pool::new(patience));
        let asked = urls.iter().cycle().take(urls.len() * times).map(|url| {
            let (pool, url) = (Rc::clone(&pool), url.clone());
            async move { (pool.get(&url).await, url) }
        });
        let mut answers = stream::iter(asked).buffered(at_once);
        let mut failures = 0;
        while let Some((answer, url)) = answers.next().await {
            match answer {
                Ok((status, body)) => println!("{} {} {url}", status.as_u16(), body.len()),
                Err(error) => {
                    println!("{error} {url}");
                    failures += 1;
                }
            }
        }
        println!("{} connections", pool.connections());
        failures
    })?;
    if failures == 0 { Ok(()) } else { Err(format!("{failures} requests failed").into()) }
}
