//! The run-time router.
//!
//! Paths without parameters live in one hash table, the others in a trie with one level per segment.
//! The table is asked first, which is right: a path of literals only beats every other match.
//!
//! Invariant: a shape (a pattern without its names) has exactly one leaf, reached through the table
//! or through the trie, never both. Built by `insert`, read by `find`, which allocates nothing and
//! visits each trie node at most once, whatever the path.

use super::Found;
use super::pattern::{Flaw, Pattern, Segment};
use super::scan::segment_end;
use super::texts::Texts;
use crate::message::{PARAMS_MAX, PATH_BYTES_MAX, Params, intern};
use http::Method;
use std::fmt;

/// Routes from method and path to a `T`, built at run time. The rules are in the
/// [module's header](super).
///
/// Finding a path without parameters costs a look into a hash table; others, one for each segment. Only
/// the length and eight bytes are hashed. Nothing is allocated or locked.
///
/// ```
/// use http::Method;
/// use netpoll_http::router::{Found, Params, Tree};
///
/// let mut tree = Tree::new();
/// tree.insert(Method::GET, "/orders/{id}", 1)?;
/// tree.insert(Method::GET, "/orders/latest", 2)?;
///
/// let mut params = Params::new();
/// assert_eq!(tree.find("GET", "/orders/latest", &mut params), Found::Route(&2));
/// assert_eq!(tree.find("GET", "/orders/7", &mut params), Found::Route(&1));
/// assert_eq!(params.get("id", "/orders/7"), Some("7"));
/// assert_eq!(tree.find("PUT", "/orders/7", &mut params), Found::MethodNotAllowed("GET, HEAD"));
///
/// let twice = tree.insert(Method::GET, "/orders/{number}", 3).unwrap_err();
/// assert!(twice.to_string().contains("/orders/{id}"), "names what is in the way");
/// # Ok::<(), netpoll_http::router::RouteError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tree<T> {
    /// Paths without parameters, with their leaves.
    literals: Texts,
    /// `nodes[0]` is the root; a node's children come after it.
    nodes: Vec<Node>,
    leaves: Vec<Leaf<T>>,
}

impl<T> Tree<T> {
    /// No routes.
    pub fn new() -> Tree<T> {
        Tree { literals: Texts::default(), nodes: vec![Node::default()], leaves: Vec::new() }
    }

    /// Adds a route. The order of additions does not matter.
    ///
    /// # Errors
    /// [`RouteError::Pattern`] if the pattern is flawed, [`RouteError::Conflict`] if the same method
    /// already has a pattern that matches the same paths. The tree is unchanged then, `value` dropped.
    pub fn insert(&mut self, method: Method, pattern: &str, value: T) -> Result<(), RouteError> {
        self.insert_for(Some(method), pattern, value)
    }

    /// Adds a route for all methods of its paths that have none of their own, registered or not.
    ///
    /// # Errors
    /// Those of [`insert`](Self::insert).
    pub fn insert_any(&mut self, pattern: &str, value: T) -> Result<(), RouteError> {
        self.insert_for(None, pattern, value)
    }

    /// Adds a route for a method, or for any.
    pub(super) fn insert_for(
        &mut self,
        method: Option<Method>,
        pattern: &str,
        value: T,
    ) -> Result<(), RouteError> {
        let parsed = Pattern::parse(pattern)
            .map_err(|flaw| RouteError::Pattern { pattern: pattern.to_owned(), flaw })?;
        let leaf = self.leaf_of(&parsed);
        let leaf = &mut self.leaves[leaf];
        if let Some(known) = leaf.endpoints.iter().find(|known| known.method == method) {
            return Err(RouteError::Conflict {
                method,
                pattern: pattern.to_owned(),
                existing: known.pattern.to_string(),
            });
        }
        let names = intern(parsed.names());
        leaf.add(Endpoint { method, pattern: pattern.into(), names, value });
        Ok(())
    }

    /// Keeps what begins with a prefix from patterns that have parameters in its place: nothing is found there but what was added there. What
    /// was not, has a route for no method: [`Found::MethodNotAllowed`] with an empty list.
    ///
    /// # Errors
    /// [`RouteError::Pattern`] if the prefix is no pattern.
    pub(super) fn reserve(&mut self, prefix: &str) -> Result<(), RouteError> {
        let parsed = Pattern::parse(prefix)
            .map_err(|flaw| RouteError::Pattern { pattern: prefix.to_owned(), flaw })?;
        self.leaf_of(&parsed);
        if let Ok(with_slash) = Pattern::parse(&format!("{prefix}/")) {
            self.leaf_of(&with_slash);
        }
        let mut at = 0;
        for segment in parsed.segments() {
            match segment {
                Segment::Literal(text) => at = self.literal_child(at, text),
                Segment::Param => at = self.param_child(at),
                Segment::Rest => return Ok(()),
            }
        }
        // What is below has a place among the parameters.
        if parsed.names().len() < PARAMS_MAX && self.nodes[at].rest.is_none() {
            self.nodes[at].rest = Some(self.new_leaf());
        }
        Ok(())
    }

    /// Finds the route for a method (case-sensitive) and a raw path (without the query).
    ///
    /// `params` is overwritten: the route's parameters after [`Found::Route`], else none. A path
    /// that does not begin with `/`, such as `*`, is [`Found::NotFound`]. Allocates nothing.
    #[inline]
    pub fn find(&self, method: &str, path: &str, params: &mut Params) -> Found<'_, &T> {
        self.find_bytes(method, path.as_bytes(), params)
    }

    /// The same for a path that is not known to be text.
    #[inline]
    pub(super) fn find_bytes(&self, method: &str, path: &[u8], params: &mut Params) -> Found<'_, &T> {
        params.clear();
        let leaf = match self.literals.find(path) {
            Some(leaf) => leaf,
            None => match self.find_in_trie(path, params) {
                Some(leaf) => leaf,
                None => return Found::NotFound,
            },
        };
        let leaf = &self.leaves[leaf as usize];
        match leaf.endpoint(method) {
            Some(endpoint) => {
                params.name(endpoint.names);
                Found::Route(&endpoint.value)
            }
            None => Found::MethodNotAllowed(&leaf.allow),
        }
    }

    /// The value that was inserted first of those that have a path, whatever their methods.
    pub(super) fn find_any(&self, path: &str) -> Option<&T> {
        let found = self.literals.find(path.as_bytes());
        let leaf = found.or_else(|| self.find_in_trie(path.as_bytes(), &mut Params::new()))?;
        self.leaves[leaf as usize].endpoints.first().map(|endpoint| &endpoint.value)
    }

    /// All routes in no particular order: method, pattern, value. No method is any.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&Method>, &str, &T)> {
        let endpoints = self.leaves.iter().flat_map(|leaf| &leaf.endpoints);
        endpoints.map(|endpoint| (endpoint.method.as_ref(), &*endpoint.pattern, &endpoint.value))
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.endpoints.len()).sum()
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    fn find_in_trie(&self, path: &[u8], params: &mut Params) -> Option<u32> {
        if path.first() != Some(&b'/') || path.len() > PATH_BYTES_MAX {
            return None;
        }
        self.walk(&self.nodes[0], path, 1, 0, params)
    }

    /// Matches the segments of `path` from `start` on against the children of `node`. As deep as the
    /// deepest pattern, at most 32.
    fn walk(&self, node: &Node, path: &[u8], start: usize, bound: usize, params: &mut Params) -> Option<u32> {
        if node.literals.is_empty() && node.param.is_none() {
            return node.take_rest(path, start, bound, params);
        }
        let end = segment_end(path, start);
        let go_on = |child: u32, bound: usize, params: &mut Params| {
            let child = &self.nodes[child as usize];
            if end == path.len() { child.leaf } else { self.walk(child, path, end + 1, bound, params) }
        };
        if let Some(child) = node.literals.find(&path[start..end])
            && let Some(leaf) = go_on(child, bound, params)
        {
            return Some(leaf);
        }
        if let Some(child) = node.param
            && start < end
        {
            params.set(bound, start, end);
            if let Some(leaf) = go_on(child, bound + 1, params) {
                return Some(leaf);
            }
        }
        node.take_rest(path, start, bound, params)
    }

    /// The leaf of the pattern's shape, made if it is new.
    fn leaf_of(&mut self, pattern: &Pattern<'_>) -> usize {
        let fresh = self.leaves.len() as u32;
        let leaf = if pattern.is_literal() {
            self.literals.find_or_insert(pattern.text(), fresh)
        } else {
            let mut at = 0;
            let mut leaf = None;
            for segment in pattern.segments() {
                match segment {
                    Segment::Literal(text) => at = self.literal_child(at, text),
                    Segment::Param => at = self.param_child(at),
                    Segment::Rest => leaf = Some(*self.nodes[at].rest.get_or_insert(fresh)),
                }
            }
            leaf.unwrap_or_else(|| *self.nodes[at].leaf.get_or_insert(fresh))
        };
        if leaf == fresh {
            self.new_leaf();
        }
        leaf as usize
    }

    /// A leaf that nothing is at yet.
    fn new_leaf(&mut self) -> u32 {
        let fresh = self.leaves.len() as u32;
        self.leaves.push(Leaf { by_code: [NO_ENDPOINT; CODES], endpoints: Vec::new(), allow: String::new() });
        fresh
    }

    fn literal_child(&mut self, parent: usize, text: &str) -> usize {
        let fresh = self.nodes.len() as u32;
        let child = self.nodes[parent].literals.find_or_insert(text, fresh);
        if child == fresh {
            self.nodes.push(Node::default());
        }
        child as usize
    }

    fn param_child(&mut self, parent: usize) -> usize {
        let fresh = self.nodes.len() as u32;
        let child = *self.nodes[parent].param.get_or_insert(fresh);
        if child == fresh {
            self.nodes.push(Node::default());
        }
        child as usize
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Tree<T> {
        Tree::new()
    }
}

/// A place in the trie: the segments up to here are matched.
#[derive(Clone, Debug, Default)]
struct Node {
    /// Next segments that are literal, with their nodes.
    literals: Texts,
    /// The node behind `{name}`.
    param: Option<u32>,
    /// The leaf of `{*name}`.
    rest: Option<u32>,
    /// The leaf of a pattern that ends here.
    leaf: Option<u32>,
}

impl Node {
    fn take_rest(&self, path: &[u8], start: usize, bound: usize, params: &mut Params) -> Option<u32> {
        let leaf = self.rest?;
        if start == path.len() {
            return None;
        }
        params.set(bound, start, path.len());
        Some(leaf)
    }
}

/// All methods of one shape. None where a path was reserved.
#[derive(Clone, Debug)]
struct Leaf<T> {
    /// Index into `endpoints` per method code; HEAD points to GET's unless it has its own, and what has none to the one for any.
    by_code: [u16; CODES],
    endpoints: Vec<Endpoint<T>>,
    allow: String,
}

#[derive(Clone, Debug)]
struct Endpoint<T> {
    /// `None` is any that has no other.
    method: Option<Method>,
    /// As it was written, for messages.
    pattern: Box<str>,
    names: &'static [&'static str],
    value: T,
}

const CODES: usize = 8;
const NO_ENDPOINT: u16 = u16::MAX;

/// The common methods by number, so that a leaf is asked by index. `None`: compare the text.
#[inline]
fn code(method: &str) -> Option<usize> {
    Some(match method {
        "GET" => 0,
        "POST" => 1,
        "HEAD" => 2,
        "PUT" => 3,
        "DELETE" => 4,
        "PATCH" => 5,
        "OPTIONS" => 6,
        "TRACE" => 7,
        _ => return None,
    })
}

impl<T> Leaf<T> {
    #[inline]
    fn endpoint(&self, method: &str) -> Option<&Endpoint<T>> {
        match code(method) {
            // NO_ENDPOINT is out of range: `add` never fills that place.
            Some(code) => self.endpoints.get(usize::from(self.by_code[code])),
            None => self.endpoint_by_name(method),
        }
    }

    #[cold]
    fn endpoint_by_name(&self, method: &str) -> Option<&Endpoint<T>> {
        self.endpoints.get(self.place(method).or_else(|| self.place_of_any())?)
    }

    fn add(&mut self, endpoint: Endpoint<T>) {
        self.endpoints.push(endpoint);
        assert!(
            self.endpoints.len() < usize::from(NO_ENDPOINT),
            "more methods on one path than can be counted"
        );
        self.by_code = ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"].map(|method| {
            let own = self.place(method);
            let place = if method == "HEAD" { own.or_else(|| self.place("GET")) } else { own };
            place.or_else(|| self.place_of_any()).map_or(NO_ENDPOINT, |place| place as u16)
        });
        self.allow = self.allowed().join(", ");
    }

    fn place(&self, method: &str) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.method.as_ref().is_some_and(|own| own == method))
    }

    fn place_of_any(&self) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.method.is_none())
    }

    fn allowed(&self) -> Vec<&str> {
        let mut methods = Vec::new();
        for method in self.endpoints.iter().filter_map(|endpoint| endpoint.method.as_ref()) {
            methods.push(method.as_str());
            if *method == Method::GET && self.place("HEAD").is_none() {
                methods.push("HEAD");
            }
        }
        methods
    }
}

/// Why a route was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The pattern is not one.
    Pattern {
        /// The pattern as it was written.
        pattern: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The method already has a pattern that matches exactly the same paths.
    Conflict {
        /// The method of both; `None` if they take any.
        method: Option<Method>,
        /// The pattern that was to be added.
        pattern: String,
        /// The pattern that is there.
        existing: String,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::Pattern { pattern, flaw } => write!(f, "route pattern \"{pattern}\": {flaw}"),
            RouteError::Conflict { method, pattern, existing } => {
                let method = method.as_ref().map_or("ANY", Method::as_str);
                write!(f, "route {method} \"{pattern}\" matches the same paths as {method} \"{existing}\"")
            }
        }
    }
}

impl std::error::Error for RouteError {}
