//! Named texts into types of the program, by serde: what queries, forms and paths have in common.
//!
//! A text is parsed as its field wants it, with [`FromStr`]; a name that is there more than once is a list, and nothing else. The error says
//! which name it is about.
//!
//! Invariant: time and memory grow with the number of pairs, whatever their names: a form has as many as its sender likes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::de::value::{CowStrDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// What is wrong, and with which name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) name: Option<String>,
    pub(super) what: Flaw,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Missing,
    Refused(String),
}

/// How much of a client's name, and of what is said of its value, goes back to it, in bytes.
const NAME_BYTES_MAX: usize = 64;
const REASON_BYTES_MAX: usize = 256;

/// As much of a client's text as an answer repeats.
pub(super) fn clipped(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}..", &text[..end]).into()
}

/// The same of a name.
pub(super) fn clipped_name(name: &str) -> Cow<'_, str> {
    clipped(name, NAME_BYTES_MAX)
}

impl FieldError {
    fn refused(why: impl Display) -> Self {
        Self { name: None, what: Flaw::Refused(clipped(&why.to_string(), REASON_BYTES_MAX).into_owned()) }
    }

    /// The same, if it has no name yet.
    fn at(mut self, name: &str) -> Self {
        self.name.get_or_insert_with(|| name.to_owned());
        self
    }
}

impl Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what } = self;
        let name = name.as_deref().map(clipped_name);
        match (name, what) {
            (Some(name), Flaw::Missing) => write!(f, " `{name}` is missing"),
            (Some(name), Flaw::Refused(why)) => write!(f, " `{name}`: {why}"),
            (None, Flaw::Missing) => f.write_str(": something is missing"),
            (None, Flaw::Refused(why)) => write!(f, ": {why}"),
        }
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: Display>(why: T) -> Self {
        Self::refused(why)
    }

    fn missing_field(name: &'static str) -> Self {
        Self { name: Some(name.to_owned()), what: Flaw::Missing }
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        Self::refused(format!("not known, only {}", expected.join(", "))).at(name)
    }
}

/// A name and its texts, of which there is one at least.
struct Field<'de> {
    name: Cow<'de, str>,
    texts: Texts<'de>,
}

struct Texts<'de> {
    first: Cow<'de, str>,
    more: Vec<Cow<'de, str>>,
}

/// Pairs whose names say which field they are: a query or a form.
pub(super) struct Pairs<'de>(pub(super) Vec<(Cow<'de, str>, Cow<'de, str>)>);

impl<'de> Pairs<'de> {
    /// In the order in which each name came first.
    fn fields(self) -> Vec<Field<'de>> {
        let mut fields: Vec<Field<'de>> = Vec::new();
        let mut places: HashMap<Cow<'de, str>, usize> = HashMap::new();
        for (name, text) in self.0 {
            match places.get(&name) {
                Some(&place) => fields[place].texts.more.push(text),
                None => {
                    places.insert(name.clone(), fields.len());
                    fields.push(Field { name, texts: Texts::of(text) });
                }
            }
        }
        fields
    }
}

impl<'de> de::Deserializer<'de> for Pairs<'de> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_map(Fields::new(self.fields()))
    }

    /// All pairs as they came: `Vec<(String, String)>`.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visit_all(
            self.0.into_iter().map(|(name, value)| Pair(vec![Texts::of(name), Texts::of(value)])),
            visitor,
        )
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit_struct tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// Shows each, and refuses what is left behind the last one that was wanted.
fn visit_all<'de, V: Visitor<'de>>(
    each: impl Iterator<Item = impl IntoDeserializer<'de, FieldError>>,
    visitor: V,
) -> Result<V::Value, FieldError> {
    let mut each = SeqDeserializer::new(each);
    let value = visitor.visit_seq(&mut each)?;
    each.end()?;
    Ok(value)
}

/// A name and a text, where pairs are wanted.
struct Pair<'de>(Vec<Texts<'de>>);

impl<'de> de::Deserializer<'de> for Pair<'de> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visit_all(self.0.into_iter(), visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct enum identifier ignored_any option seq newtype_struct
    }
}

impl<'de> IntoDeserializer<'de, FieldError> for Pair<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Texts that have a place as well as a name: the parameters of a path.
pub(super) struct Places<'de>(pub(super) Vec<(&'static str, Cow<'de, str>)>);

impl<'de> Places<'de> {
    fn fields(self) -> Fields<'de> {
        let field = |(name, text)| Field { name: Cow::Borrowed(name), texts: Texts::of(text) };
        Fields::new(self.0.into_iter().map(field).collect())
    }

    /// Shows each. A type that wants fewer is a mistake, as is one that wants more.
    fn visit_all<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let many = self.0.len();
        let mut fields = self.fields();
        let value = visitor.visit_seq(&mut fields)?;
        match fields.left.len() {
            0 => Ok(value),
            left => Err(FieldError::refused(format!(
                "{} values are wanted, and the route has {many}",
                many - left
            ))),
        }
    }

    /// The only one.
    fn alone(mut self) -> Result<(&'static str, Texts<'de>), FieldError> {
        match (self.0.len(), self.0.pop()) {
            (1, Some((name, text))) => Ok((name, Texts::of(text))),
            (many, _) => Err(FieldError::refused(format!("one value is wanted, and the route has {many}"))),
        }
    }
}

/// Asks the only text for what the type wants.
macro_rules! alone {
    ($($ask:ident)*) => {$(
        fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
            let (name, text) = self.alone()?;
            text.$ask(visitor).map_err(|error| error.at(name))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Places<'de> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_map(self.fields())
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.visit_all(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, FieldError> {
        self.visit_all(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.visit_all(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        enum_name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let (name, text) = self.alone()?;
        text.deserialize_enum(enum_name, variants, visitor).map_err(|error| error.at(name))
    }

    alone! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option
    }

    forward_to_deserialize_any! { unit unit_struct map struct identifier ignored_any }
}

/// Fields one after the other.
struct Fields<'de> {
    left: std::vec::IntoIter<Field<'de>>,
    /// The one whose name was asked for.
    open: Option<Field<'de>>,
}

impl<'de> Fields<'de> {
    fn new(fields: Vec<Field<'de>>) -> Self {
        Self { left: fields.into_iter(), open: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        let Some(field) = self.left.next() else { return Ok(None) };
        // As the values are: a map's keys may be numbers, and may borrow.
        let key = seed.deserialize(Texts::of(field.name.clone())).map_err(|error| error.at(&field.name))?;
        self.open = Some(field);
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, FieldError> {
        let Some(Field { name, texts }) = self.open.take() else {
            return Err(FieldError::refused("a value was asked for before its name"));
        };
        seed.deserialize(texts).map_err(|error| error.at(&name))
    }
}

impl<'de> SeqAccess<'de> for Fields<'de> {
    type Error = FieldError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, FieldError> {
        let Some(Field { name, texts }) = self.left.next() else { return Ok(None) };
        seed.deserialize(texts).map(Some).map_err(|error| error.at(&name))
    }
}

impl<'de> Texts<'de> {
    /// One text.
    fn of(first: Cow<'de, str>) -> Self {
        Self { first, more: Vec::new() }
    }

    /// The text, where there can be one.
    fn alone(self) -> Result<Cow<'de, str>, FieldError> {
        match self.more.is_empty() {
            true => Ok(self.first),
            false => Err(FieldError::refused("it is there more than once")),
        }
    }

    fn parse<T>(self) -> Result<T, FieldError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.alone()?.parse().map_err(FieldError::refused)
    }
}

/// Parses the text as what the type wants.
macro_rules! parsed {
    ($($ask:ident $visit:ident)*) => {$(
        fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
            visitor.$visit(self.parse()?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Texts<'de> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        if self.more.is_empty() { self.deserialize_str(visitor) } else { self.deserialize_seq(visitor) }
    }

    parsed! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8
        deserialize_i16 visit_i16
        deserialize_i32 visit_i32
        deserialize_i64 visit_i64
        deserialize_i128 visit_i128
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_u128 visit_u128
        deserialize_f32 visit_f32
        deserialize_f64 visit_f64
        deserialize_char visit_char
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.alone()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.alone()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_bytes(text.as_bytes()),
            Cow::Owned(text) => visitor.visit_byte_buf(text.into_bytes()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visit_all(std::iter::once(self.first).chain(self.more).map(Texts::of), visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, FieldError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let text: CowStrDeserializer<'_, FieldError> = self.alone()?.into_deserializer();
        visitor.visit_enum(text)
    }

    forward_to_deserialize_any! {
        byte_buf unit_struct tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, FieldError> for Texts<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
