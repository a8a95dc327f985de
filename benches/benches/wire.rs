//! Bytes of HTTP/1.1: a head comes in, a body is put together, a head goes out.
//!
//! Everything that a worker keeps from one request to the next (index, beginnings of heads, vectors) is kept here.

use std::hint::black_box;

use benches::requests::{BROWSER, PLAINTEXT, SMALL, UPLOAD, chunked_body, head_with};
use criterion::{Criterion, Throughput};
use netpoll_http::StatusCode;
use netpoll_http::internals::wire::response::{close_head, header, open_head, patch_length, usual_head};
use netpoll_http::internals::wire::{
    Connection, ContentType, Decoder, Framing, HeadIndex, HeadStarts, Length, Limits, Progress, ResponseHead,
    Scan, parse,
};

const NOW: u64 = 784_111_777; // RFC 9110's example date

pub fn heads_are_read(criterion: &mut Criterion) {
    let many = head_with(64);
    let heads: [(&str, &[u8]); 5] = [
        ("small, 27 B", SMALL),
        ("plaintext, 161 B", PLAINTEXT),
        ("browser, 525 B", BROWSER),
        ("upload, chunked", UPLOAD),
        ("64 headers", &many),
    ];
    let mut group = criterion.benchmark_group("wire/read a head");
    let (mut scan, limits, mut index) = (Scan::default(), Limits::default(), HeadIndex::new());
    for (name, bytes) in heads {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| match parse(black_box(bytes), &mut scan, &limits, &mut index) {
                Ok(Progress::Done(head)) => head.consumed(),
                other => unreachable!("{other:?}"),
            });
        });
    }
    group.finish();
}

pub fn bodies_are_decoded(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/decode a chunked body of 4 KiB");
    for (name, chunks, data_bytes) in [("1 chunk", 1, 4096), ("8 chunks", 8, 512), ("256 chunks", 256, 16)] {
        let body = chunked_body(chunks, data_bytes);
        let mut out = Vec::with_capacity(body.len());
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                let decoded = Decoder::new().decode(black_box(&body), &mut out, u64::MAX);
                assert!(decoded.is_ok_and(|decoded| decoded.done));
                out.len()
            });
        });
    }
    group.finish();

    // Where the body ends is part of reading the head: what the two kinds of framing add to the same head.
    let mut group = criterion.benchmark_group("wire/frame an upload");
    let (mut scan, limits, mut index) = (Scan::default(), Limits::default(), HeadIndex::new());
    let length =
        String::from_utf8_lossy(UPLOAD).replace("Transfer-Encoding: chunked", "Content-Length: 4096");
    let neither =
        String::from_utf8_lossy(UPLOAD).replace("Transfer-Encoding: chunked", "X-Nothing: nothing at");
    let heads = [
        ("no body", neither.as_bytes(), Framing::None),
        ("length", length.as_bytes(), Framing::Length(4096)),
        ("chunked", UPLOAD, Framing::Chunked),
    ];
    for (name, bytes, framing) in heads {
        group.bench_function(name, |bencher| {
            bencher.iter(|| match parse(black_box(bytes), &mut scan, &limits, &mut index) {
                Ok(Progress::Done(head)) => assert_eq!(head.framing, framing),
                other => unreachable!("{other:?}"),
            });
        });
    }
    group.finish();
}

pub fn heads_are_written(criterion: &mut Criterion) {
    let mut starts = HeadStarts::new();
    let starts = starts.at(NOW);
    let mut out = Vec::with_capacity(1024);
    let mut group = criterion.benchmark_group("wire/write a head");
    group.bench_function("usual", |bencher| {
        bencher.iter(|| {
            out.clear();
            let length = Length::Known(black_box(13));
            usual_head(&mut out, starts, black_box(StatusCode::OK), ContentType::Plain, length)
        });
    });
    group.bench_function("length filled in later", |bencher| {
        bencher.iter(|| {
            out.clear();
            let status = black_box(StatusCode::OK);
            let slot = usual_head(&mut out, starts, status, ContentType::Json, Length::Deferred).flatten();
            patch_length(&mut out, slot.expect("a deferred length has a slot"), black_box(27));
        });
    });
    group.bench_function("with three free headers", |bencher| {
        bencher.iter(|| {
            out.clear();
            let head = ResponseHead {
                status: black_box(StatusCode::OK),
                content_type: ContentType::Json,
                starts,
                connection: Connection::Unsaid,
                length: Length::Known(black_box(27)),
            };
            open_head(&mut out, &head);
            for (name, value) in black_box(FREE) {
                header(&mut out, name, value.as_bytes()).expect("valid headers");
            }
            close_head(&mut out);
        });
    });
    group.finish();
}

const FREE: [(&str, &str); 3] =
    [("cache-control", "no-store"), ("x-request-id", "6f1c0d1e9a7b4c52"), ("vary", "accept-encoding")];
