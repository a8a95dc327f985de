//! The routes of a small shop, for everything that measures finding one.
//!
//! Sixteen fixed paths and four patterns with parameters, under the numbers 0 to 19: as a table of the compiler,
//! as a service of the compiler, and as a router. One list makes all three.

use netpoll_http::router::{Router, Table};
use netpoll_http::{Method, Request, Service};

/// How many of the routes have no parameter; they come first.
pub const FIXED: usize = 16;

/// How many routes there are.
pub const ROUTES: usize = 20;

/// A path for each pattern with parameters, in their order.
pub const WITH_PARAMETERS: [&str; ROUTES - FIXED] =
    ["/orders/81723", "/users/ann/orders/81723", "/api/v1/items/teapot", "/files/2026/11/invoice.pdf"];

macro_rules! shop {
    ($make:ident) => {
        $make! {
            GET "/", GET "/plaintext", GET "/json", GET "/health", GET "/login", GET "/logout", GET "/orders",
            GET "/orders/latest", GET "/users", GET "/users/me", GET "/stats", GET "/api/v1/items",
            GET "/api/v1/items/search", GET "/api/v1/payments", GET "/static/app.js", GET "/static/style.css",
            GET "/orders/{id}", GET "/users/{user}/orders/{order}", GET "/api/v1/items/{id}", GET "/files/{*path}"
        }
    };
}

macro_rules! table {
    ($($method:ident $pattern:literal),*) => {
        netpoll_http::route_table! {
            /// The routes as the compiler sorts them.
            pub struct Shop { $($method $pattern),* }
        }
    };
}

macro_rules! service {
    ($($method:ident $pattern:literal),*) => {
        netpoll_http::routes! { $($method $pattern => |_: &Request| $pattern),* }
    };
}

shop!(table);

/// The routes as `routes!` makes them; each answers with its pattern.
pub fn service() -> impl Service {
    shop!(service)
}

/// The routes in a router; each answers with its pattern.
pub fn router() -> Router {
    patterns()
        .fold(Router::new(), |router, pattern| router.on(Method::GET, pattern, move |_: &Request| pattern))
}

/// The patterns by number.
pub fn patterns() -> impl Iterator<Item = &'static str> {
    Shop::routes().list().iter().map(|route| route.pattern())
}

/// A path for each route, by number.
pub fn paths() -> Vec<String> {
    patterns().take(FIXED).chain(WITH_PARAMETERS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use netpoll_http::Params;
    use netpoll_http::router::Found;

    use super::*;

    #[test]
    fn each_path_leads_to_the_route_of_its_number() {
        assert_eq!(patterns().count(), ROUTES);
        for (number, path) in paths().iter().enumerate() {
            let mut params = Params::new();
            assert_eq!(Shop::find("GET", path, &mut params), Found::Route(number), "{path}");
            assert_eq!(params.is_empty(), number < FIXED, "{path}");
        }
    }
}
