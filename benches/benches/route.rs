//! Finding the function for a path, and calling it.
//!
//! All contestants have the same twenty routes and the same twenty functions, which nobody may inline: a call is a
//! call for everybody. Paths come in random order, each in its own piece of memory. Ours also look at the method
//! and fill in parameters; the map and the list only compare paths.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use benches::routes::{FIXED, Shop, paths, patterns, router, service};
use criterion::Criterion;
use netpoll_http::router::{Found, Table, Tree};
use netpoll_http::{Method, Params, Route, Service};

type Function = Box<dyn Fn(&str) -> usize>;

#[inline(never)]
fn function<const NUMBER: usize>(path: &str) -> usize {
    black_box(path.len() + NUMBER)
}

macro_rules! numbered {
    ($make:ident $($argument:ident)*) => { $make!($($argument,)* 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19) };
}

macro_rules! boxed {
    ($($number:literal)*) => { vec![$(Box::new(function::<$number>) as Function),*] };
}

macro_rules! call {
    ($number:ident, $path:ident, $($literal:literal)*) => {
        match $number {
            $($literal => function::<$literal>($path),)*
            _ => unreachable!("a table finds only numbers that it has"),
        }
    };
}

/// What `routes!` expands to: the table, and one switch to the functions.
fn by_table(path: &str, params: &mut Params) -> usize {
    match Shop::find("GET", path, params) {
        Found::Route(number) => numbered!(call number path),
        other => unreachable!("{other:?}"),
    }
}

fn by_tree(tree: &Tree<Function>, path: &str, params: &mut Params) -> usize {
    match tree.find("GET", path, params) {
        Found::Route(function) => function(path),
        Found::MethodNotAllowed(_) | Found::NotFound => unreachable!("{path}"),
    }
}

fn by_map(map: &HashMap<String, Function>, path: &str) -> usize {
    map.get(path).expect("the path is there")(path)
}

fn by_list(list: &[(String, Function)], path: &str) -> usize {
    let (_, function) = list.iter().find(|(known, _)| known == path).expect("the path is there");
    function(path)
}

fn by_matchit(router: &matchit::Router<Function>, path: &str) -> usize {
    let found = router.at(path).expect("the path is there");
    black_box(&found.params);
    (found.value)(path)
}

fn functions() -> impl Iterator<Item = (&'static str, Function)> {
    patterns().zip(numbered!(boxed))
}

fn tree() -> Tree<Function> {
    let mut tree = Tree::new();
    for (pattern, function) in functions() {
        tree.insert(Method::GET, pattern, function).expect("a route");
    }
    tree
}

fn matchit() -> matchit::Router<Function> {
    let mut router = matchit::Router::new();
    for (pattern, function) in functions() {
        router.insert(pattern, function).expect("a route");
    }
    router
}

fn map() -> HashMap<String, Function> {
    functions().take(FIXED).map(|(path, function)| (path.to_owned(), function)).collect()
}

/// Thousands of requests for some of the paths, in an order that a branch predictor cannot learn.
struct Requests {
    paths: Vec<String>,
    at: usize,
}

impl Requests {
    /// A power of two.
    const LEN: usize = 1 << 12;

    fn new(paths: &[String]) -> Self {
        // The generator of Knuth's MMIX; its high bits are the good ones.
        let mut state = 7_u64;
        let mut pick = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            paths[(state >> 33) as usize % paths.len()].clone()
        };
        Self { paths: (0..Self::LEN).map(|_| pick()).collect(), at: 0 }
    }

    #[inline]
    fn next(&mut self) -> &str {
        self.at = (self.at + 1) % Self::LEN;
        black_box(&self.paths[self.at])
    }
}

pub fn fixed_paths_are_found_and_called(criterion: &mut Criterion) {
    let (tree, matchit, map) = (tree(), matchit(), map());
    let list: Vec<_> = functions().take(FIXED).map(|(path, function)| (path.to_owned(), function)).collect();
    let mut requests = Requests::new(&paths()[..FIXED]);
    let mut params = Params::new();
    let mut group = criterion.benchmark_group("route/fixed");
    group.bench_function("no lookup, one call", |bencher| bencher.iter(|| function::<0>(requests.next())));
    group.bench_function("routes!", |bencher| bencher.iter(|| by_table(requests.next(), &mut params)));
    group.bench_function("Tree", |bencher| bencher.iter(|| by_tree(&tree, requests.next(), &mut params)));
    group.bench_function("HashMap", |bencher| bencher.iter(|| by_map(&map, requests.next())));
    group.bench_function("matchit", |bencher| bencher.iter(|| by_matchit(&matchit, requests.next())));
    group.bench_function("one comparison after the other", |bencher| {
        bencher.iter(|| by_list(&list, requests.next()));
    });
    group.finish();
    if is_wanted("route/fixed/ratio") {
        print_ratio(&map, &mut requests, &mut params);
    }
}

pub fn paths_with_parameters_are_found_and_called(criterion: &mut Criterion) {
    let (tree, matchit) = (tree(), matchit());
    let mut requests = Requests::new(&paths()[FIXED..]);
    let mut params = Params::new();
    let mut group = criterion.benchmark_group("route/parameters");
    group.bench_function("routes!", |bencher| bencher.iter(|| by_table(requests.next(), &mut params)));
    group.bench_function("Tree", |bencher| bencher.iter(|| by_tree(&tree, requests.next(), &mut params)));
    group.bench_function("matchit", |bencher| bencher.iter(|| by_matchit(&matchit, requests.next())));
    group.finish();
}

/// What a connection calls: without the handler, with all paths mixed.
pub fn services_find_their_routes(criterion: &mut Criterion) {
    fn find(service: &impl Service, path: &str, params: &mut Params) -> u32 {
        match service.find("GET", path.as_bytes(), params) {
            Route::To(route) => route.0,
            other => unreachable!("{other:?}"),
        }
    }
    let (service, router) = (service(), router());
    let mut requests = Requests::new(&paths());
    let mut params = Params::new();
    let mut group = criterion.benchmark_group("route/service");
    group.bench_function("routes!", |bencher| bencher.iter(|| find(&service, requests.next(), &mut params)));
    group.bench_function("Router", |bencher| bencher.iter(|| find(&router, requests.next(), &mut params)));
    group.finish();
}

/// Measuring, not testing or listing, and not filtered away.
fn is_wanted(name: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    let is_bench =
        std::env::args().any(|arg| arg == "--bench") && !std::env::args().any(|arg| arg == "--list");
    is_bench && (filters.peek().is_none() || filters.any(|filter| name.contains(&filter)))
}

/// The ratio that is promised, from rounds that alternate, so that both see the same machine.
fn print_ratio(map: &HashMap<String, Function>, requests: &mut Requests, params: &mut Params) {
    // A round is shorter than a slice of the scheduler: most are not interrupted, and the median is one of those.
    const ROUNDS: usize = 1001;
    const LOOKUPS: u32 = 10_000;
    fn time(mut lookup: impl FnMut() -> usize) -> Duration {
        let begin = Instant::now();
        for _ in 0..LOOKUPS {
            black_box(lookup());
        }
        begin.elapsed()
    }
    let round = |_| {
        let by_table = time(|| by_table(requests.next(), params));
        let by_map = time(|| by_map(map, requests.next()));
        by_map.as_secs_f64() / by_table.as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..ROUNDS).map(round).collect();
    ratios.sort_by(f64::total_cmp);
    let [low, middle, high] = [ROUNDS / 4, ROUNDS / 2, ROUNDS * 3 / 4].map(|at| ratios[at]);
    println!(
        "route/fixed/ratio: HashMap takes {middle:.2} times as long as routes!, quartiles {low:.2} to {high:.2}"
    );
}
