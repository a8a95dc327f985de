//! What the micro benchmarks and the instruction counts read: request heads and a body in chunks.
//!
//! Both measure the same bytes, so that a time and a count can be held side by side.

/// The least that is a request: 27 bytes, one header.
pub const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What TechEmpower's plaintext test sends: 161 bytes, three headers.
pub const PLAINTEXT: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: server\r\n\
    Accept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,application/xml;q=0.8,*/*;q=0.7\r\n\
    Connection: keep-alive\r\n\r\n";

/// What a browser sends: 525 bytes, a request line and twelve headers.
pub const BROWSER: &[u8] = b"GET /orders?page=2 HTTP/1.1\r\n\
    Host: shop.example\r\n\
    Connection: keep-alive\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en-US;q=0.7,en;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example/orders\r\n\
    Cookie: session=6f1c0d1e9a7b4c52; theme=dark\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\r\n";

/// An upload in chunks, before its body.
pub const UPLOAD: &[u8] = b"POST /orders HTTP/1.1\r\nHost: shop.example\r\n\
    Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

const _: () = assert!(SMALL.len() == 27 && PLAINTEXT.len() == 161 && BROWSER.len() == 525);

/// A head with this many headers of 24 bytes each, Host among them.
pub fn head_with(headers: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nHost: shop.example.net.\r\n".to_vec();
    for header in 1..headers {
        head.extend_from_slice(format!("X-Header-{header:02}: a value\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A whole body of `chunks` chunks of `data_bytes` bytes each.
pub fn chunked_body(chunks: usize, data_bytes: usize) -> Vec<u8> {
    let chunk = format!("{data_bytes:x}\r\n{}\r\n", "x".repeat(data_bytes));
    let mut body = chunk.repeat(chunks).into_bytes();
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// A POST of JSON as the load client sends it.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,\
         application/xml;q=0.8,*/*;q=0.7\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
