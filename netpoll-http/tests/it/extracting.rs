//! Typed values out of requests.

use netpoll_http::{Json, Method, Request, Router, StatusCode, TestClient};

use crate::client;

fn params() -> TestClient {
    client(|| {
        Router::new()
            .get("/n/{n}", |req: &Request| Ok(req.param::<u8>("n")?.to_string()))
            .get("/s/{s}", |req: &Request| req.param::<String>("s"))
            .get("/raw/{s}", |req: &Request| req.param_raw("s").unwrap_or("none").to_owned())
            .get("/files/{*path}", |req: &Request| req.param::<String>("path"))
            .get("/wrong/{a}", |req: &Request| req.param::<String>("b"))
            .get("/q", |req: &Request| Ok(req.query::<u32>("n")?.to_string()))
            .get("/opt", |req: &Request| Ok(format!("{:?}", req.query_opt::<u32>("n")?)))
            .get("/text", |req: &Request| req.query::<String>("t"))
    })
}

#[test]
fn a_path_parameter_is_parsed_into_the_type_that_the_handler_names() {
    assert_eq!(params().get("/n/200").text(), "200");
}

#[test]
fn a_path_parameter_that_does_not_parse_is_a_400_that_says_why() {
    let response = params().get("/n/300");
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    assert_eq!(response.text(), "path parameter `n`: number too large to fit in target type\n");
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn a_path_parameter_is_percent_decoded_once_and_a_plus_stays_a_plus() {
    assert_eq!(params().get("/s/a%20b+c%2525").text(), "a b+c%25");
    assert_eq!(params().get("/raw/a%20b").text(), "a%20b");
    assert_eq!(params().get("/files/a/b%2Fc").text(), "a/b/c");
}

#[test]
fn a_parameter_that_decodes_to_no_text_is_a_400() {
    for path in ["/s/%ff", "/s/%4", "/s/%zz"] {
        let response = params().get(path);
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(response.text().starts_with("path parameter `s`: "), "{}", response.text());
    }
}

#[test]
fn asking_for_a_parameter_that_the_pattern_has_not_is_the_programs_mistake() {
    let response = params().get("/wrong/1");
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.text(), "internal server error\n");
}

#[test]
fn a_query_value_is_decoded_with_plus_as_space() {
    assert_eq!(params().get("/text?x=1&t=a+b%2Bc&t=second").text(), "a b+c");
}

#[test]
fn a_missing_query_value_is_a_400_unless_it_is_optional() {
    assert_eq!(params().get("/q").text(), "query parameter `n` is missing\n");
    assert_eq!(params().get("/q?n").text(), "query parameter `n`: cannot parse integer from empty string\n");
    assert_eq!(params().get("/q?n=7").text(), "7");
    assert_eq!(params().get("/opt?m=7").text(), "None");
    assert_eq!(params().get("/opt?n=7").text(), "Some(7)");
    assert_eq!(params().get("/opt?n=x").status, StatusCode::BAD_REQUEST);
}

#[test]
fn headers_cookies_and_connection_facts_are_there_as_they_were_sent() {
    let client = client(|| {
        Router::new().get("/", |req: &Request| {
            format!(
                "{} {} {:?} {:?} {:?} {:?} {:?} {:?} {} {}",
                req.method(),
                req.target(),
                req.version(),
                req.host(),
                req.header("x-bytes"),
                req.header_str("X-TEXT"),
                req.cookie("b"),
                req.content_type(),
                req.keep_alive(),
                req.headers().count(),
            )
        })
    });
    let response = client
        .request(Method::GET, "/?a=b")
        .header("X-Bytes", "1")
        .header("x-text", "two")
        .header("Cookie", "a=1; b=2")
        .header("Content-Type", "text/plain; charset=utf-8")
        .header("Connection", "close")
        .send();
    assert_eq!(
        response.text(),
        "GET /?a=b HTTP/1.1 Some(\"test\") Some([49]) Some(\"two\") Some(\"2\") Some(\"text/plain\") false 6"
    );
}

#[test]
fn json_is_refused_with_the_status_that_says_what_is_wrong() {
    let client = client(|| Router::new().post("/", |req: &Request| Ok(Json(req.json::<Vec<u8>>()?))));
    let with = |content_type: &str, body: &str| {
        client.request(Method::POST, "/").header("Content-Type", content_type).body(body).send()
    };

    assert_eq!(with("application/json", "[1, 2]").text(), "[1,2]");
    assert_eq!(with("application/vnd.x+json; charset=utf-8", "[]").text(), "[]");

    let wrong_type = with("text/plain", "[]");
    assert_eq!(wrong_type.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(wrong_type.text(), "expected `content-type: application/json`, got text/plain\n");
    assert_eq!(client.post("/", "[]").status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    let broken = with("application/json", "[1,\n 300]");
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    assert!(broken.text().starts_with("request body: `[1]`: invalid value"), "{}", broken.text());
    assert!(broken.text().ends_with("at line 2 column 4\n"), "{}", broken.text());
}

#[test]
fn a_json_error_names_the_field() {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Order {
        items: Vec<Item>,
    }
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Item {
        quantity: u32,
    }
    let client = client(|| Router::new().post("/", |req: &Request| Ok(Json(req.json::<Order>()?))));
    for (body, said) in [
        (
            r#"{"items":[{"quantity":1},{"quantity":"x"}]}"#,
            r#"`items[1].quantity`: invalid type: string "x", expected u32 at line 1 column 40"#,
        ),
        (r#"{"items":[{}]}"#, "`items[0]`: missing field `quantity` at line 1 column 12"),
        ("{}", "missing field `items` at line 1 column 2"),
        (r#"{"items":[]} x"#, "trailing characters at line 1 column 14"),
        ("", "EOF while parsing a value at line 1 column 0"),
    ] {
        let sent = client.request(Method::POST, "/").header("Content-Type", "application/json");
        let refused = sent.body(body).send();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(refused.text(), format!("request body: {said}\n"), "{body}");
    }
}

#[test]
fn a_json_error_names_no_field_where_the_text_ends_before_one() {
    #[derive(serde::Deserialize)]
    struct Order {
        #[serde(rename = "items")]
        _items: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(rename = "sku")]
        _sku: String,
    }
    let client = client(|| Router::new().post("/", |req: &Request| req.json::<Order>().map(drop)));
    for (body, said) in [
        ("{", "request body: EOF while parsing an object at line 1 column 1"),
        ("{\"items\":[{", "request body: `items[0]`: EOF while parsing an object at line 1 column 11"),
        ("", "request body: EOF while parsing a value at line 1 column 0"),
        (
            "{\"items\":[{\"sku\":",
            "request body: `items[0].sku`: EOF while parsing a value at line 1 column 17",
        ),
    ] {
        let sent = client.request(Method::POST, "/").header("Content-Type", "application/json");
        assert_eq!(sent.body(body).send().text().trim_end(), said);
    }
}

#[test]
fn a_content_type_on_two_lines_is_none() {
    let client = client(|| Router::new().post("/", |req: &Request| req.json::<u8>().map(|_| "taken")));
    let sent = client.request(Method::POST, "/").header("Content-Type", "application/json");
    assert_eq!(sent.header("content-type", "text/plain").body("1").send().status.as_u16(), 415);
}

#[test]
fn a_list_is_read_over_all_its_lines() {
    let client = client(|| {
        Router::new().get("/", |req: &Request| {
            let lines = req.header_lines("x-list").map(String::from_utf8_lossy);
            lines.collect::<Vec<_>>().join("|")
        })
    });
    let sent = client.request(Method::GET, "/").header("X-List", "a, b").header("x-list", "c");
    assert_eq!(sent.header("X-Lists", "d").send().text(), "a, b|c");
    assert_eq!(client.get("/").text(), "");
}

#[test]
fn json_may_borrow_from_the_request() {
    #[derive(serde::Deserialize)]
    struct Name<'a> {
        name: &'a str,
    }
    let client = client(|| {
        Router::new().post("/", |req: &Request| {
            let name: Name<'_> = req.json()?;
            Ok(name.name.len().to_string())
        })
    });
    let sent = client.request(Method::POST, "/").header("Content-Type", "application/json");
    assert_eq!(sent.body(r#"{"name":"four"}"#).send().text(), "4");
}

#[test]
fn a_request_turns_into_the_http_crates_own_type() {
    let client = client(|| {
        Router::new().put("/x", |req: &Request| {
            let request = req.clone().into_http()?;
            let (parts, body) = request.into_parts();
            Ok(format!("{} {} {:?} {}", parts.method, parts.uri, parts.headers.get("a"), body.len()))
        })
    });
    let response = client.request(Method::PUT, "/x?y=z").header("A", "b").body("four").send();
    assert_eq!(response.text(), "PUT /x?y=z Some(\"b\") 4");
}
