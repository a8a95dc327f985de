//! `grpc-timeout`: how long a client waits, as the protocol has it (`PROTOCOL-HTTP2.md` of gRPC). A call ends with it, whether its answer has begun or not.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, Incoming};
use netpoll_core::Instant;
use netpoll_core::time::{Sleep, sleep, sleep_until, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service;

/// A number of at most eight digits, and a unit. `None` for what is none, which is not kept then.
pub fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn passed() -> Status {
    Status::deadline_exceeded("the time that the client has given has passed")
}

/// Answers a call, in the time that it has.
pub async fn keep(mut routes: Routes, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let Some(time) = of(request.headers()) else { return routes.call(request).await };
    let deadline: Instant = sleep(time).deadline();
    match timeout_at(deadline, routes.call(request)).await {
        Ok(answer) => answer.map(|response| response.map(|body| Body::new(Until::new(body, deadline)))),
        Err(_passed) => Ok(passed().into_http()),
    }
}

/// A body that ends with the deadline.
struct Until {
    /// `None` behind its end.
    body: Option<Body>,
    deadline: Sleep,
}

impl Until {
    fn new(body: Body, deadline: Instant) -> Self {
        Self { body: Some(body), deadline: sleep_until(deadline) }
    }
}

impl hyper::body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if Pin::new(&mut self.deadline).poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.body = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(passed().add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_and_a_unit() {
        let of = |text: &str| {
            of(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!((of("2H"), of("3M")), (Some(Duration::from_secs(7200)), Some(Duration::from_secs(180))));
        assert_eq!((of("4S"), of("5m")), (Some(Duration::from_secs(4)), Some(Duration::from_millis(5))));
        assert_eq!((of("6u"), of("7n")), (Some(Duration::from_micros(6)), Some(Duration::from_nanos(7))));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "1", "m", "+1m", "-1m", "1s", "1 m", "123456789m", "1ü"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
