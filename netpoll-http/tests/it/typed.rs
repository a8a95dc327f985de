//! Queries, forms and paths as types of the program.

use std::collections::BTreeMap;

use netpoll_http::{
    Error, Form, FromRequest, Json, Method, Path, Query, Request, Router, StatusCode, TestClient,
    TestResponse,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::client;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Up,
    Down,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "they are shown")]
struct Search<'a> {
    q: &'a str,
    #[serde(default)]
    page: u32,
    order: Option<Order>,
    #[serde(default)]
    tag: Vec<String>,
    exact: Option<bool>,
    at: Option<(f64, f64)>,
    letter: Option<char>,
    name: Option<Name>,
}

#[derive(Debug, Deserialize)]
struct Name(#[expect(dead_code, reason = "it is shown")] String);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    name: String,
    age: u8,
}

#[derive(Deserialize)]
struct Item {
    id: u32,
    shop: String,
}

fn typed() -> TestClient {
    client(|| {
        Router::new()
            .get("/search", |req: &Request| {
                let Query(search): Query<Search<'_>> = req.extract()?;
                Ok(format!("{search:?}"))
            })
            .get("/map", |req: &Request| {
                let Query(all): Query<BTreeMap<String, String>> = req.extract()?;
                Ok(format!("{all:?}"))
            })
            .get("/pairs", |req: &Request| {
                let Query(all): Query<Vec<(String, String)>> = req.extract()?;
                Ok(format!("{all:?}"))
            })
            .get("/strict", |req: &Request| req.extract().map(|Query(strict): Query<Strict>| Json(strict)))
            .post("/form", |req: &Request| req.extract().map(|Form(strict): Form<Strict>| Json(strict)))
            .post("/async", async |req: Request| req.extract().map(|Form(strict): Form<Strict>| Json(strict)))
            .get("/one/{n}", |req: &Request| req.extract().map(|Path(n): Path<u8>| n.to_string()))
            .get("/which/{which}", |req: &Request| {
                req.extract().map(|Path(order): Path<Order>| format!("{order:?}"))
            })
            .get("/{shop}/items/{id}", |req: &Request| {
                let Path(item): Path<Item> = req.extract()?;
                Ok(format!("{} of {}", item.id, item.shop))
            })
            .get("/{shop}/tuple/{id}", |req: &Request| {
                let Path((shop, id)): Path<(String, u32)> = req.extract()?;
                Ok(format!("{id} of {shop}"))
            })
            .get("/{shop}/one/{id}", |req: &Request| req.extract().map(|Path(n): Path<u8>| n.to_string()))
            .get("/{shop}/three/{id}", |req: &Request| {
                req.extract().map(|Path((a, _, _)): Path<(String, u32, u32)>| a)
            })
            .get("/{shop}/other/{number}", |req: &Request| {
                req.extract().map(|Path(item): Path<Item>| item.shop)
            })
    })
}

fn search(query: &str) -> String {
    typed().get(&format!("/search?{query}")).text().to_owned()
}

#[test]
fn a_query_is_a_struct_whose_fields_parse_themselves() {
    assert_eq!(
        search("q=tea&page=3&order=down&tag=a&x=y&tag=b+c%21&exact=true&at=1.5&at=-2&letter=%C3%A4&name=n"),
        "Search { q: \"tea\", page: 3, order: Some(Down), tag: [\"a\", \"b c!\"], exact: Some(true), \
         at: Some((1.5, -2.0)), letter: Some('ä'), name: Some(Name(\"n\")) }"
    );
    assert_eq!(
        search("q="),
        "Search { q: \"\", page: 0, order: None, tag: [], exact: None, at: None, letter: None, name: None }"
    );
}

#[test]
fn what_is_wrong_with_a_query_is_a_400_that_names_the_field() {
    for (query, said) in [
        ("page=1", "query parameter `q` is missing\n"),
        ("", "query parameter `q` is missing\n"),
        ("q=a&page=x", "query parameter `page`: invalid digit found in string\n"),
        ("q=a&page=", "query parameter `page`: cannot parse integer from empty string\n"),
        ("q=a&page=1&page=2", "query parameter `page`: it is there more than once\n"),
        ("q=a&q=b", "query parameter `q`: it is there more than once\n"),
        ("q=a&order=left", "query parameter `order`: unknown variant `left`, expected `up` or `down`\n"),
        ("q=a&exact=yes", "query parameter `exact`: provided string was not `true` or `false`\n"),
        ("q=a&at=1", "query parameter `at`: invalid length 1, expected a tuple of size 2\n"),
        ("q=a&letter=ab", "query parameter `letter`: too many characters in string\n"),
        ("q=%zz", "query parameter `q`: A percent sign is not followed by two hexadecimal digits.\n"),
        ("q=a&%ff=1", "query parameter `%ff`: The percent-decoded text is not UTF-8.\n"),
    ] {
        let refused = typed().get(&format!("/search?{query}"));
        assert_eq!((refused.status, refused.text()), (StatusCode::BAD_REQUEST, said), "{query}");
    }
    let unknown = typed().get("/strict?name=a&age=1&size=2");
    assert_eq!(
        (unknown.status.as_u16(), unknown.text()),
        (400, "query parameter `size`: not known, only name, age\n")
    );
    assert_eq!(typed().get("/strict").text(), "query parameter `name` is missing\n");
}

#[test]
fn a_query_may_be_a_map_or_a_list_of_pairs() {
    assert_eq!(typed().get("/map?b=1&a=x%20y&&c").text(), r#"{"a": "x y", "b": "1", "c": ""}"#);
    assert_eq!(typed().get("/map").text(), "{}");
    assert_eq!(typed().get("/pairs?b=1&a=2&b=3").text(), r#"[("b", "1"), ("a", "2"), ("b", "3")]"#);
}

fn post(path: &str, content_type: &str, body: &str) -> TestResponse {
    typed().request(Method::POST, path).header("Content-Type", content_type).body(body).send()
}

#[test]
fn the_names_of_a_map_are_parsed_as_its_values_are_and_may_borrow() {
    let client = client(|| {
        Router::new()
            .get("/numbers", |req: &Request| {
                let Query(all): Query<BTreeMap<u8, i64>> = req.extract()?;
                Ok(format!("{all:?}"))
            })
            .get("/borrowed", |req: &Request| {
                let Query(all): Query<BTreeMap<&str, &str>> = req.extract()?;
                Ok(format!("{all:?}"))
            })
    });
    assert_eq!(client.get("/numbers?1=-2&30=4").text(), "{1: -2, 30: 4}");
    let refused = client.get("/numbers?300=1").text().to_owned();
    assert_eq!(refused, "query parameter `300`: number too large to fit in target type\n");
    assert_eq!(client.get("/borrowed?a=b").text(), r#"{"a": "b"}"#);
}

#[test]
fn flattened_fields_are_texts_and_what_they_share_can_be_extracted_apart() {
    #[derive(Deserialize)]
    struct Flat {
        q: String,
        #[serde(flatten)]
        page: Texts,
    }
    #[derive(Deserialize)]
    struct Texts {
        order: Order,
        tag: Vec<String>,
        #[serde(deserialize_with = "parsed")]
        page: u32,
    }
    #[derive(Deserialize)]
    struct Page {
        page: u32,
    }
    fn parsed<'de, D: serde::Deserializer<'de>>(text: D) -> Result<u32, D::Error> {
        String::deserialize(text)?.parse().map_err(serde::de::Error::custom)
    }
    let client = client(|| {
        Router::new()
            .get("/flat", |req: &Request| {
                let Query(Flat { q, page: Texts { order, tag, page } }) = req.extract()?;
                Ok(format!("{q} {order:?} {tag:?} {page}"))
            })
            .get("/apart", |req: &Request| {
                let (Query(Page { page }), Query(pairs)): (_, Query<Vec<(String, String)>>) =
                    (req.extract()?, req.extract()?);
                Ok(format!("{page} {}", pairs.len()))
            })
    });
    assert_eq!(client.get("/flat?q=a&order=up&tag=1&tag=2&page=3").text(), "a Up [\"1\", \"2\"] 3");
    assert_eq!(client.get("/flat?q=a&order=up&tag=1&tag=2&page=x").status, StatusCode::BAD_REQUEST);
    assert_eq!(client.get("/apart?q=a&page=3").text(), "3 2");
}

#[test]
fn more_than_is_wanted_is_refused_and_never_left_out() {
    let client = client(|| {
        Router::new()
            .get("/at", |req: &Request| {
                let Query(all): Query<BTreeMap<String, (f64, f64)>> = req.extract()?;
                Ok(format!("{all:?}"))
            })
            .get("/path/{a}/{b}", |req: &Request| {
                let Path((a,)): Path<(String,)> = req.extract()?;
                Ok(a)
            })
    });
    assert_eq!(client.get("/at?at=1&at=2").text(), r#"{"at": (1.0, 2.0)}"#);
    let three = client.get("/at?at=1&at=2&at=3");
    assert_eq!(three.status, StatusCode::BAD_REQUEST);
    assert_eq!(three.text(), "query parameter `at`: invalid length 3, expected 2 elements in sequence\n");
    let status = client.get("/path/x/y").status;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "a mistake of the program");
}

#[test]
fn a_form_is_read_like_a_query() {
    const FORM: &str = "application/x-www-form-urlencoded";
    for path in ["/form", "/async"] {
        assert_eq!(post(path, FORM, "name=Ada+L%2e&age=36").text(), r#"{"name":"Ada L.","age":36}"#);
        let with_charset = format!("{}; charset=utf-8", FORM.to_uppercase());
        assert_eq!(post(path, &with_charset, "name=a&age=1").status, StatusCode::OK);
        for (body, said) in [
            ("name=a&age=300", "form field `age`: number too large to fit in target type\n"),
            ("name=a", "form field `age` is missing\n"),
            ("", "form field `name` is missing\n"),
            ("name=a&age=1&x=y", "form field `x`: not known, only name, age\n"),
            ("name=%", "form field `name`: A percent sign is not followed by two hexadecimal digits.\n"),
        ] {
            let refused = post(path, FORM, body);
            assert_eq!((refused.status, refused.text()), (StatusCode::BAD_REQUEST, said), "{body}");
        }
        let json = post(path, "application/json", "{}");
        assert_eq!(
            (json.status.as_u16(), json.text()),
            (415, "expected `content-type: application/x-www-form-urlencoded`, got application/json\n")
        );
        assert_eq!(typed().post(path, "name=a&age=1").status.as_u16(), 415);
    }
}

#[test]
fn a_path_is_a_struct_a_tuple_or_a_value() {
    assert_eq!(typed().get("/one/7").text(), "7");
    assert_eq!(typed().get("/which/up").text(), "Up");
    assert_eq!(typed().get("/Bean%20House/items/7").text(), "7 of Bean House");
    assert_eq!(typed().get("/a+b%2Fc/tuple/7").text(), "7 of a+b/c");
}

#[test]
fn what_is_wrong_with_a_path_is_a_400_that_names_the_parameter() {
    for (path, said) in [
        ("/one/x", "path parameter `n`: invalid digit found in string\n"),
        ("/one/%ff", "path parameter `n`: The percent-decoded text is not UTF-8.\n"),
        ("/which/left", "path parameter `which`: unknown variant `left`, expected `up` or `down`\n"),
        ("/a/items/x", "path parameter `id`: invalid digit found in string\n"),
        ("/a/tuple/x", "path parameter `id`: invalid digit found in string\n"),
    ] {
        let refused = typed().get(path);
        assert_eq!((refused.status, refused.text()), (StatusCode::BAD_REQUEST, said), "{path}");
    }
}

#[test]
fn a_path_that_has_not_what_the_program_wants_is_the_programs_mistake() {
    for path in ["/a/one/7", "/a/three/7", "/a/other/7"] {
        let refused = typed().get(path);
        assert_eq!((refused.status.as_u16(), refused.text()), (500, "internal server error\n"), "{path}");
    }
}

#[test]
fn a_program_has_extractors_of_its_own() {
    struct Token<'r>(&'r str);
    impl<'r> FromRequest<'r> for Token<'r> {
        fn from_request(request: &'r Request<'_>) -> Result<Self, Error> {
            request.header_str("x-token").map(Token).ok_or(StatusCode::UNAUTHORIZED.into())
        }
    }
    let client = client(|| {
        Router::new()
            .get("/", |req: &Request| req.extract().map(|Token(token)| token.len().to_string()))
            .post("/", |req: &Request| req.extract().map(|Json(number): Json<u8>| number.to_string()))
    });
    assert_eq!(client.get("/").status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.request(Method::GET, "/").header("X-Token", "four").send().text(), "4");
    assert_eq!(client.post_json("/", &7_u8).text(), "7");
    assert_eq!(client.post_json("/", &700).status, StatusCode::BAD_REQUEST);
}

#[test]
fn a_form_of_very_many_names_takes_no_longer_for_each() {
    let client = netpoll_http::App::new(|_| {
        Router::new().post("/", |req: &Request| {
            let Form(all): Form<BTreeMap<String, String>> = req.extract()?;
            Ok(all.len().to_string())
        })
    })
    .test();
    let body: String = (0..10_000).map(|number| format!("{number:x}=&")).collect();
    let sent = client.request(Method::POST, "/").header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(sent.body(body).send().text(), "10000");
}

/// All that a form can be made of.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct All {
    text: String,
    number: i64,
    small: u8,
    flag: bool,
    order: Order,
    letter: char,
    maybe: Option<u16>,
}

fn all() -> impl Strategy<Value = All> {
    let order = prop_oneof![Just(Order::Up), Just(Order::Down)];
    (any::<String>(), any::<i64>(), any::<u8>(), any::<bool>(), order, any::<char>(), any::<Option<u16>>())
        .prop_map(|(text, number, small, flag, order, letter, maybe)| All {
            text,
            number,
            small,
            flag,
            order,
            letter,
            maybe,
        })
}

fn echo_query() -> TestClient {
    client(|| Router::new().get("/", |req: &Request| req.extract().map(|Query(all): Query<All>| Json(all))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What others write is read as it was meant.
    #[test]
    fn a_query_that_was_written_by_others_comes_back(all in all()) {
        let query = serde_urlencoded::to_string(&all).expect("it is flat");
        let answer = echo_query().get(&format!("/?{query}"));
        prop_assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        prop_assert_eq!(answer.json::<All>(), all);
    }

    /// Pairs are read as others read them, or refused where those guess.
    #[test]
    fn any_query_is_read_as_others_read_it(query in "[a-c=&+%0-9A-F~x-]{0,24}") {
        let client = client(|| {
            Router::new().get("/", |req: &Request| req.extract().map(|Query(all): Query<Vec<(String, String)>>| Json(all)))
        });
        let answer = client.get(&format!("/?{query}"));
        if answer.status == StatusCode::OK {
            let others: Vec<(String, String)> = serde_urlencoded::from_str(&query).expect("pairs");
            prop_assert_eq!(answer.json::<Vec<(String, String)>>(), others);
        } else {
            prop_assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            prop_assert!(query.contains('%'), "only escapes can be wrong: {}", query);
        }
    }

    /// Nothing that a client sends in place of a value is a failure of ours.
    #[test]
    fn any_value_is_taken_or_refused_with_400(
        name in "text|number|small|flag|order|letter|maybe|[a-z]", value in "[ -~]{0,8}",
    ) {
        let mut fields: Vec<(String, String)> =
            [("text", "a"), ("number", "1"), ("small", "1"), ("flag", "true"), ("order", "up"), ("letter", "a")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        fields.retain(|(known, _)| *known != name);
        fields.push((name.clone(), value));
        let query = serde_urlencoded::to_string(&fields).expect("pairs");
        let answer = echo_query().get(&format!("/?{query}"));
        prop_assert!(matches!(answer.status.as_u16(), 200 | 400), "{query}");
        if answer.status == StatusCode::BAD_REQUEST {
            let named = format!("query parameter `{name}`");
            prop_assert!(answer.text().starts_with(&named), "{} for {}", answer.text(), query);
        }
    }
}

#[test]
fn a_test_sends_forms_as_a_page_does_and_every_common_method_by_name() {
    let client = client(|| {
        Router::new()
            .post("/form", |req: &Request| {
                let Form(all): Form<BTreeMap<String, String>> = req.extract()?;
                Ok(format!("{all:?}"))
            })
            .any("/", |req: &Request| format!("{} {}", req.method(), String::from_utf8_lossy(req.body())))
    });
    let fields = [("name", "Ann & Bo"), ("ö", "100 %"), ("=", "+\r\n")];
    let sent: BTreeMap<_, _> = fields.into_iter().collect();
    assert_eq!(client.post_form("/form", &fields).text(), format!("{sent:?}"));
    let request = client.request(Method::PUT, "/").form(&[("a", "b c")]);
    assert_eq!(request.send().text(), "PUT a=b+c");
    assert_eq!(client.put("/", "1").text(), "PUT 1");
    assert_eq!(client.patch("/", "2").text(), "PATCH 2");
    assert_eq!(client.delete("/").text(), "DELETE ");
}

#[test]
fn more_fields_than_ten_thousand_are_refused_and_errors_repeat_no_long_text() {
    let client = client(|| {
        Router::new()
            .post("/all", |req: &Request| {
                req.extract().map(|Form(all): Form<BTreeMap<String, String>>| all.len().to_string())
            })
            .post("/strict", |req: &Request| req.extract().map(|Form(strict): Form<Strict>| Json(strict)))
            .get("/search", |req: &Request| {
                let Query(search): Query<Search<'_>> = req.extract()?;
                Ok(format!("{search:?}"))
            })
    });
    let form = |count: usize| (0..count).map(|number| format!("n{number}=1")).collect::<Vec<_>>().join("&");
    let post = |path: &str, body: String| {
        let request = client.request(Method::POST, path);
        request.header("Content-Type", "application/x-www-form-urlencoded").body(body).send()
    };
    assert_eq!(post("/all", form(10_000)).text(), "10000");
    let refused = post("/all", form(10_001));
    assert_eq!(
        (refused.status, refused.text()),
        (StatusCode::BAD_REQUEST, "form has more than 10000 fields\n")
    );

    let long = "ö".repeat(100_000);
    for (path, body) in [
        ("/strict", format!("{long}=1")),
        ("/strict", format!("name={long}&age={long}")),
        ("/strict", format!("%zz{long}=1")),
        ("/strict", format!("{long}=%ff")),
    ] {
        let refused = post(path, body);
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.len() < 512, "{} bytes", refused.body.len());
    }
    let refused = client.get(&format!("/search?q=a&order={}", "x".repeat(5000)));
    assert!(refused.status == StatusCode::BAD_REQUEST && refused.body.len() < 512, "{}", refused.text());
}
