//! Both routers against the rules in the module's header.
//!
//! `Naive` knows the rules in their plainest form: split both at `/`, keep what matches, take the
//! best. Both are compared with it on random routes and paths; what the compiler would do for a
//! table is done at run time for that.

use super::table::{Checked, Routes};
use super::{Flaw, Found, Params, RouteError, Table, Tree};
use http::Method;
use proptest::prelude::*;

/// What was found, with the parameters by name.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Route(usize, Vec<(String, String)>),
    NotAllowed(String),
    NotFound,
}

fn seen(found: Found<'_, usize>, params: &Params, path: &str) -> Seen {
    if !matches!(found, Found::Route(_)) {
        assert!(params.is_empty(), "parameters without a route");
    }
    let params = params.iter(path).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match found {
        Found::Route(number) => Seen::Route(number, params),
        Found::MethodNotAllowed(allow) => Seen::NotAllowed(allow.to_owned()),
        Found::NotFound => Seen::NotFound,
    }
}

fn in_tree(tree: &Tree<usize>, method: &str, path: &str) -> Seen {
    let mut params = left_over();
    let found = match tree.find(method, path, &mut params) {
        Found::Route(number) => Found::Route(*number),
        Found::MethodNotAllowed(allow) => Found::MethodNotAllowed(allow),
        Found::NotFound => Found::NotFound,
    };
    seen(found, &params, path)
}

fn in_table<T: Table>(method: &str, path: &str) -> Seen {
    let mut params = left_over();
    seen(T::find(method, path, &mut params), &params, path)
}

/// Params that an earlier request has used.
fn left_over() -> Params {
    let mut params = Params::new();
    params.set(0, 0, 1);
    params.name(&["left", "over"]);
    params
}

fn tree(routes: &[(&str, &str)]) -> Tree<usize> {
    let mut tree = Tree::new();
    for (number, (method, pattern)) in routes.iter().enumerate() {
        tree.insert(method.parse().unwrap(), pattern, number).unwrap();
    }
    tree
}

/// The reference.
struct Naive {
    routes: Vec<(String, String)>,
}

impl Naive {
    fn kind(segment: &str) -> u8 {
        if segment.starts_with("{*") { 3 } else { 1 + u8::from(segment.starts_with('{')) }
    }

    fn shape(pattern: &str) -> Vec<&str> {
        let bare = |segment| match Naive::kind(segment) {
            1 => segment,
            2 => "{}",
            _ => "{*}",
        };
        pattern.split('/').map(bare).collect()
    }

    fn values(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
        let (mut values, mut path) = (Vec::new(), path.split('/').collect::<Vec<_>>());
        for segment in pattern.split('/') {
            if Naive::kind(segment) == 3 {
                let name = segment[2..segment.len() - 1].to_owned();
                let rest = path.join("/");
                values.push((name, rest.clone()));
                return (!rest.is_empty()).then_some(values);
            }
            if path.is_empty() {
                return None;
            }
            let part = path.remove(0);
            if Naive::kind(segment) == 1 && part != segment || Naive::kind(segment) == 2 && part.is_empty() {
                return None;
            }
            if Naive::kind(segment) == 2 {
                values.push((segment[1..segment.len() - 1].to_owned(), part.to_owned()));
            }
        }
        path.is_empty().then_some(values)
    }

    fn find(&self, method: &str, path: &str) -> Seen {
        let matching = self.routes.iter().filter(|(_, pattern)| Naive::values(pattern, path).is_some());
        let kinds = |pattern: &str| pattern.split('/').map(Naive::kind).collect::<Vec<_>>();
        let Some((_, best)) = matching.min_by_key(|(_, pattern)| kinds(pattern)) else {
            return Seen::NotFound;
        };
        let of_shape = |wanted: &str| {
            let same = |(own, pattern): &(String, String)| {
                own == wanted && Naive::shape(pattern) == Naive::shape(best)
            };
            self.routes.iter().position(same)
        };
        let found = of_shape(method).or_else(|| if method == "HEAD" { of_shape("GET") } else { None });
        if let Some(number) = found {
            return Seen::Route(number, Naive::values(&self.routes[number].1, path).unwrap());
        }
        let mut allow = Vec::new();
        for (own, pattern) in &self.routes {
            if Naive::shape(pattern) == Naive::shape(best) {
                allow.push(own.as_str());
                if own == "GET" && of_shape("HEAD").is_none() {
                    allow.push("HEAD");
                }
            }
        }
        Seen::NotAllowed(allow.join(", "))
    }
}

/// Patterns over few words, so that they overlap, conflict and share prefixes.
fn pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => "a|b|ab|orders|a-long-segment|b-long-segment",
        3 => "[x-z]".prop_map(|name| format!("{{{name}}}")),
    ];
    let end = prop_oneof![6 => Just(""), 1 => Just("/"), 2 => Just("/{*rest}")];
    (prop::collection::vec(segment, 0..5), end).prop_map(|(segments, end)| {
        let text: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        if text.is_empty() && end.is_empty() { "/".to_owned() } else { text + end }
    })
}

fn path() -> impl Strategy<Value = String> {
    let segment = "a|b|ab|orders|a-long-segment|b-long-segment||%2F|[a-z0-9]{1,40}";
    let path = prop::collection::vec(segment, 0..6).prop_map(|segments| format!("/{}", segments.join("/")));
    prop_oneof![9 => path, 1 => "[a/*{}]{0,6}"]
}

fn method() -> impl Strategy<Value = String> {
    "GET|GET|POST|HEAD|PUT|OPTIONS|PURGE|get"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_tree_finds_what_the_rules_say(
        routes in prop::collection::vec((method(), pattern()), 0..24),
        requests in prop::collection::vec((method(), path()), 1..24),
    ) {
        let (mut tree, mut naive) = (Tree::new(), Naive { routes: Vec::new() });
        for (method, pattern) in routes {
            let rival = naive.routes.iter().find(|(own, known)| {
                *own == method && Naive::shape(known) == Naive::shape(&pattern)
            });
            let names: Vec<&str> = pattern.split('/').filter(|segment| Naive::kind(segment) == 2).collect();
            let has_twins = (1..names.len()).any(|index| names[..index].contains(&names[index]));
            let method_token: Method = method.parse().unwrap();
            match (tree.insert(method_token.clone(), &pattern, naive.routes.len()), rival) {
                (Ok(()), None) => naive.routes.push((method, pattern)),
                (Err(RouteError::Pattern { flaw: Flaw::DuplicateName, .. }), _) => prop_assert!(has_twins),
                (Err(error), Some((_, existing))) => prop_assert_eq!(
                    error,
                    RouteError::Conflict { method: Some(method_token), pattern, existing: existing.clone() }
                ),
                (result, rival) => prop_assert!(false, "{:?} with {:?}", result, rival),
            }
        }
        prop_assert_eq!(tree.len(), naive.routes.len());
        for (method, path) in &requests {
            prop_assert_eq!(in_tree(&tree, method, path), naive.find(method, path));
        }
        // Every pattern, taken as a path, finds something: itself or a better one.
        for (method, pattern) in &naive.routes {
            prop_assert_eq!(in_tree(&tree, method, pattern), naive.find(method, pattern));
        }
    }

    #[test]
    fn a_checked_table_finds_what_the_rules_say(
        routes in prop::collection::vec((method(), pattern()), TABLE_ROUTES..40),
        requests in prop::collection::vec((method(), path()), 1..24),
    ) {
        let mut naive = Naive { routes: Vec::new() };
        let mut probe = Tree::new();
        for (method, pattern) in routes {
            let is_new = probe.insert(method.parse().unwrap(), &pattern, ()).is_ok();
            if is_new && method != "get" && naive.routes.len() < TABLE_ROUTES {
                naive.routes.push((method, pattern));
            }
        }
        while naive.routes.len() < TABLE_ROUTES {
            naive.routes.push(("GET".to_owned(), format!("/filler/{}", naive.routes.len())));
        }
        let table = leaked_table(&naive);
        let patterns = naive.routes.iter();
        for (method, path) in patterns.chain(&requests) {
            let mut params = left_over();
            params.clear();
            // The `match` that the macro writes.
            let literal = naive.routes.iter().position(|(_, pattern)| pattern == path && !path.contains('{'));
            let found = match literal {
                Some(number) => table.find_method(number, method),
                None => table.find_with_params(method, path.as_bytes(), &mut params),
            };
            prop_assert_eq!(seen(found, &params, path), naive.find(method, path));
        }
    }

    #[test]
    fn tables_find_what_the_rules_say(method in method(), path in path()) {
        check::<Mixed>(&method, &path);
        check::<SharedPrefix>(&method, &path);
        check::<Empty>(&method, &path);
    }
}

const TABLE_ROUTES: usize = 12;

/// A table as the macro makes it. Leaks, as a table lives for ever.
fn leaked_table(naive: &Naive) -> Routes {
    const ALLOW_BYTES_MAX: usize = 512;
    let list: Vec<(&'static str, &'static str)> = naive
        .routes
        .iter()
        .map(|(method, pattern)| (&*method.clone().leak(), &*pattern.clone().leak()))
        .collect();
    let checked: &'static Checked<TABLE_ROUTES> = Box::leak(Box::new(Checked::new(list.try_into().unwrap())));
    assert!(checked.allow_bytes() <= ALLOW_BYTES_MAX);
    checked.routes(Box::leak(Box::new(checked.allow::<ALLOW_BYTES_MAX>())))
}

fn check<T: Table>(method: &str, path: &str) {
    let routes = T::routes().list().iter();
    let routes = routes.map(|route| (route.method().to_owned(), route.pattern().to_owned()));
    let naive = Naive { routes: routes.collect() };
    assert_eq!(in_table::<T>(method, path), naive.find(method, path), "{method} {path}");
}

crate::route_table! { struct Empty {} }

crate::route_table! {
    struct Mixed {
        GET "/",
        GET "/a",
        POST "/a",
        GET "/a/",
        PUT "/a/b",
        GET "/a/{x}",
        HEAD "/a/{head}",
        PURGE "/a/{y}",
        GET "/a/{x}/b",
        GET "/a/b/{y}",
        GET "/a/{x}/{y}",
        GET "/a/{x}/{y}/a-long-segment",
        GET "/orders/a-long-segment/{x}",
        GET "/orders/b-long-segment/{x}",
        POST "/orders/{*rest}",
        GET "/orders/{x}/a/{*rest}",
        GET "/{x}/{y}/b/{z}/ab",
        GET "/{*rest}",
    }
}

crate::route_table! {
    struct SharedPrefix {
        GET "/{x}",
        POST "/{x}/a",
        GET "/{x}/{y}",
        GET "/{x}/{y}/",
        GET "/{x}/b/{*rest}",
        GET "/{x}/{y}/{z}",
        GET "/{x}/{y}/{z}/orders",
        OPTIONS "/{x}/{*rest}",
        GET "/orders/b/b/{z}",
        GET "/orders/{y}/b/a",
    }
}

#[test]
fn a_literal_beats_a_parameter_and_a_parameter_beats_the_rest() {
    let tree = tree(&[("GET", "/a/{*rest}"), ("GET", "/a/{id}"), ("GET", "/a/b")]);

    assert_eq!(in_tree(&tree, "GET", "/a/b"), Seen::Route(2, vec![]));
    assert_eq!(in_tree(&tree, "GET", "/a/c"), Seen::Route(1, vec![("id".into(), "c".into())]));
    assert_eq!(in_tree(&tree, "GET", "/a/c/d"), Seen::Route(0, vec![("rest".into(), "c/d".into())]));
}

#[test]
fn a_choice_that_leads_nowhere_is_taken_back() {
    let tree = tree(&[("GET", "/a/b/c"), ("GET", "/{x}/b/{y}"), ("GET", "/a/{z}/{*rest}")]);

    let xy = vec![("x".into(), "e".into()), ("y".into(), "d".into())];
    assert_eq!(in_tree(&tree, "GET", "/e/b/d"), Seen::Route(1, xy));
    let zrest = vec![("z".into(), "b".into()), ("rest".into(), "d".into())];
    assert_eq!(in_tree(&tree, "GET", "/a/b/d"), Seen::Route(2, zrest));
}

#[test]
fn neither_a_parameter_nor_the_rest_is_ever_empty() {
    let tree = tree(&[("GET", "/id/{id}"), ("GET", "/id/{id}/x"), ("GET", "/files/{*rest}")]);

    for path in ["/id", "/id/", "/id//x", "/files", "/files/"] {
        assert_eq!(in_tree(&tree, "GET", path), Seen::NotFound, "{path}");
    }
    assert_eq!(in_tree(&tree, "GET", "/files//"), Seen::Route(2, vec![("rest".into(), "/".into())]));
}

#[test]
fn the_raw_path_is_matched() {
    let tree = tree(&[("GET", "/a/{id}"), ("GET", "/a/b/c"), ("GET", "/caf%C3%A9")]);

    assert_eq!(in_tree(&tree, "GET", "/a/b%2Fc"), Seen::Route(0, vec![("id".into(), "b%2Fc".into())]));
    assert_eq!(in_tree(&tree, "GET", "/caf%C3%A9"), Seen::Route(2, vec![]));
    for path in ["/caf%c3%a9", "/A/x", "//a/x", "/a/x/", "/a/../a/x", "a/x", "*", ""] {
        assert_eq!(in_tree(&tree, "GET", path), Seen::NotFound, "{path}");
    }
}

#[test]
fn the_path_chooses_before_the_method() {
    let tree = tree(&[("POST", "/a/b"), ("GET", "/a/{id}")]);

    assert_eq!(in_tree(&tree, "GET", "/a/b"), Seen::NotAllowed("POST".into()));
}

#[test]
fn allow_names_head_where_get_is_and_options_only_where_it_was_added() {
    let tree = tree(&[
        ("GET", "/a"),
        ("DELETE", "/a"),
        ("GET", "/b"),
        ("HEAD", "/b"),
        ("OPTIONS", "/c"),
        ("PURGE", "/c"),
    ]);

    assert_eq!(in_tree(&tree, "OPTIONS", "/a"), Seen::NotAllowed("GET, HEAD, DELETE".into()));
    assert_eq!(in_tree(&tree, "PUT", "/b"), Seen::NotAllowed("GET, HEAD".into()));
    assert_eq!(in_tree(&tree, "HEAD", "/c"), Seen::NotAllowed("OPTIONS, PURGE".into()));
    assert_eq!(in_tree(&tree, "HEAD", "/a"), Seen::Route(0, vec![]), "served by GET");
    assert_eq!(in_tree(&tree, "HEAD", "/b"), Seen::Route(3, vec![]), "has its own");
    assert_eq!(in_tree(&tree, "PURGE", "/c"), Seen::Route(5, vec![]));
    assert_eq!(in_tree(&tree, "get", "/a"), Seen::NotAllowed("GET, HEAD, DELETE".into()), "case counts");
}

#[test]
fn methods_of_one_shape_may_name_their_parameters_differently() {
    let tree = tree(&[("GET", "/a/{id}"), ("PUT", "/a/{number}")]);

    assert_eq!(in_tree(&tree, "GET", "/a/1"), Seen::Route(0, vec![("id".into(), "1".into())]));
    assert_eq!(in_tree(&tree, "PUT", "/a/1"), Seen::Route(1, vec![("number".into(), "1".into())]));
}

#[test]
fn eight_parameters_fit() {
    let pattern = "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{*h}";
    let tree = tree(&[("GET", pattern)]);

    let Seen::Route(0, params) = in_tree(&tree, "GET", "/1/2/3/4/5/6/7/8/9") else { panic!("not found") };
    assert_eq!(params[0], ("a".into(), "1".into()));
    assert_eq!(params[7], ("h".into(), "8/9".into()));
}

#[test]
fn a_conflict_names_both_patterns_and_changes_nothing() {
    let mut tree = tree(&[("GET", "/a/{id}/b")]);
    let error = tree.insert(Method::GET, "/a/{x}/b", 1).unwrap_err();

    assert_eq!(error.to_string(), "route GET \"/a/{x}/b\" matches the same paths as GET \"/a/{id}/b\"");
    assert_eq!(tree.len(), 1);
}

#[test]
fn a_flawed_pattern_is_refused_with_its_flaw() {
    let many_params: String = ('a'..='i').map(|name| format!("/{{{name}}}")).collect();
    let many_segments = "/a".repeat(33);
    let cases = [
        ("", Flaw::NoLeadingSlash),
        ("a", Flaw::NoLeadingSlash),
        ("*", Flaw::NoLeadingSlash),
        ("//", Flaw::EmptySegment),
        ("/a//b", Flaw::EmptySegment),
        ("/a b", Flaw::ByteNotInPaths),
        ("/a?b", Flaw::ByteNotInPaths),
        ("/a#b", Flaw::ByteNotInPaths),
        ("/café", Flaw::ByteNotInPaths),
        ("/a\n", Flaw::ByteNotInPaths),
        ("/:id", Flaw::ForeignSyntax),
        ("/*rest", Flaw::ForeignSyntax),
        ("/{", Flaw::BraceInSegment),
        ("/}", Flaw::BraceInSegment),
        ("/{a", Flaw::BraceInSegment),
        ("/a{b}", Flaw::BraceInSegment),
        ("/{a}-{b}", Flaw::BraceInSegment),
        ("/{a/b}", Flaw::BraceInSegment),
        ("/{{a}}", Flaw::BraceInSegment),
        ("/{}", Flaw::EmptyName),
        ("/{*}", Flaw::EmptyName),
        ("/{a:[0-9]}", Flaw::NameNotPlain),
        ("/{**a}", Flaw::NameNotPlain),
        ("/{a}/{a}", Flaw::DuplicateName),
        ("/{a}/{*a}", Flaw::DuplicateName),
        ("/{*a}/", Flaw::RestNotLast),
        ("/{*a}/b", Flaw::RestNotLast),
        ("/{*a}/{*b}", Flaw::RestNotLast),
        (&many_params, Flaw::TooManyParams),
        (&many_segments, Flaw::TooManySegments),
    ];
    for (pattern, flaw) in cases {
        let error = Tree::new().insert(Method::GET, pattern, ()).unwrap_err();
        assert_eq!(error, RouteError::Pattern { pattern: pattern.to_owned(), flaw }, "{pattern}");
        assert_eq!(error.to_string(), format!("route pattern \"{pattern}\": {}", flaw.sentence()));
    }
}

#[test]
fn thirty_two_segments_are_fine() {
    let pattern = "/a".repeat(31) + "/{x}";
    let path = "/a".repeat(32);
    assert_eq!(
        in_tree(&tree(&[("GET", &pattern)]), "GET", &path),
        Seen::Route(0, vec![("x".into(), "a".into())])
    );
}

#[test]
fn many_literal_paths_are_told_apart() {
    let paths: Vec<String> = (0..500).map(|number| format!("/api/v{}/list-of-all", number)).collect();
    let routes: Vec<(&str, &str)> = paths.iter().map(|path| ("GET", path.as_str())).collect();
    let tree = tree(&routes);

    for (number, path) in paths.iter().enumerate() {
        assert_eq!(in_tree(&tree, "GET", path), Seen::Route(number, vec![]));
    }
    assert_eq!(in_tree(&tree, "GET", "/api/v500/list-of-all"), Seen::NotFound);
}

#[test]
fn a_table_serves_several_methods_on_one_literal_path() {
    assert_eq!(in_table::<Mixed>("GET", "/a"), Seen::Route(1, vec![]));
    assert_eq!(in_table::<Mixed>("POST", "/a"), Seen::Route(2, vec![]));
    assert_eq!(in_table::<Mixed>("HEAD", "/a"), Seen::Route(1, vec![]));
    assert_eq!(in_table::<Mixed>("PUT", "/a"), Seen::NotAllowed("GET, HEAD, POST".into()));
}

#[test]
fn a_path_with_braces_is_no_pattern() {
    assert_eq!(in_table::<Mixed>("GET", "/a/{x}"), Seen::Route(5, vec![("x".into(), "{x}".into())]));
}

#[test]
fn a_table_says_what_it_routes() {
    const NUMBER: usize = 3;
    let route = Mixed::routes().list()[NUMBER];
    assert_eq!((route.method(), route.pattern()), ("GET", "/a/"));
    assert_eq!(Mixed::routes().number("GET", "/a/"), NUMBER);
}
