//! What values of JSON are, as types: `serde_json::from_value`, but for one thing. That takes an array for
//! whatever has members, too, in the order in which they stand in the program: a second copy of what reads
//! each type, for something that nobody writes (docs/decisions/0035).

use std::vec;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value, map};

/// What `value` is as a `T`.
///
/// # Errors
/// It is none.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Given(value))
}

/// A value that is to be read.
#[derive(Clone, Debug)]
pub struct Given(pub Value);

impl Given {
    /// That it is not what was expected.
    fn wrong<T>(&self, expected: &dyn serde::de::Expected) -> Result<T, Error> {
        let found = match &self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => Unexpected::Unsigned(number),
                (_, Some(number), _) => Unexpected::Signed(number),
                (_, _, Some(number)) => Unexpected::Float(number),
                _ => Unexpected::Other("number"),
            },
        };
        Err(Error::invalid_type(found, expected))
    }

    fn members(self, expected: &dyn serde::de::Expected) -> Result<Members, Error> {
        match self.0 {
            Value::Object(all) => Ok(Members { rest: all.into_iter(), value: Value::Null }),
            _ => self.wrong(expected),
        }
    }
}

impl<'de> Deserializer<'de> for Given {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // Kept here, so that not each way out of a visitor drops what is left.
        let mut members = self.members(&visitor)?;
        visitor.visit_map(&mut members)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Array(all) = self.0 else { return self.wrong(&visitor) };
        let (len, mut parts) = (all.len(), Parts(all.into_iter()));
        let read = visitor.visit_seq(&mut parts)?;
        match parts.0.len() {
            0 => Ok(read),
            _ => Err(Error::invalid_length(len, &"fewer elements in array")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = match self.0 {
            Value::String(name) => Variant { name, rest: None },
            Value::Object(all) if all.len() == 1 => match all.into_iter().next() {
                Some((name, rest)) => Variant { name, rest: Some(rest) },
                None => return Err(Error::custom("expected a variant")),
            },
            Value::Object(_) => {
                return Err(Error::invalid_value(Unexpected::Map, &"map with a single key"));
            }
            _ => return self.wrong(&"string or map"),
        };
        visitor.visit_enum(variant)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct ignored_any
    }
}

/// Elements of an array.
struct Parts(vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for &mut Parts {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|value| seed.deserialize(Given(value))).transpose()
    }
}

/// Members of an object, and the value of the one whose name was read last.
struct Members {
    rest: map::IntoIter,
    value: Value,
}

impl<'de> MapAccess<'de> for &mut Members {
    type Error = Error;

    fn next_key_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = value;
        seed.deserialize(Name(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Given(self.value.take()))
    }
}

/// The name of a member or of a variant.
struct Name(String);

impl<'de> Deserializer<'de> for Name {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Variant { name: self.0, rest: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A variant by its name, and what is in it.
struct Variant {
    name: String,
    rest: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Rest;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Rest), Error> {
        Ok((seed.deserialize(Name(self.name))?, Rest(self.rest)))
    }
}

/// What is in a variant.
struct Rest(Option<Value>);

impl Rest {
    /// What there has to be.
    fn given(self, expected: &'static str) -> Result<Given, Error> {
        let missing = || Error::invalid_type(Unexpected::UnitVariant, &expected);
        self.0.map(Given).ok_or_else(missing)
    }
}

impl<'de> VariantAccess<'de> for Rest {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.0.map_or(Ok(()), read)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.given("newtype variant")?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.given("tuple variant")?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.given("struct variant")?.deserialize_map(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        a: Option<u8>,
        b: Vec<Kind>,
        c: BTreeMap<String, i64>,
        d: (bool, String),
        e: f64,
        f: Value,
    }

    impl Default for Whole {
        fn default() -> Self {
            let (a, b, c, d) = (None, Vec::new(), BTreeMap::new(), (false, String::new()));
            Self { a, b, c, d, e: 0.5, f: Value::Null }
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        Plain,
        New(Box<Whole>),
        Pair(u8, String),
        Full { a: bool },
    }

    fn both<T: DeserializeOwned>(value: &Value) -> [Result<T, String>; 2] {
        let text = |error: Error| error.to_string();
        [read(value.clone()).map_err(text), serde_json::from_value(value.clone()).map_err(text)]
    }

    #[test]
    fn members_have_names() {
        for variant in both::<Kind>(&json!({ "Full": [true] })) {
            assert!(
                variant.unwrap_err().starts_with("invalid type: sequence, expected struct variant")
            );
        }
        let [own, others] = both::<Vec<Kind>>(&json!([{ "New": [3, [], {}, [true, ""], 1.5, 7] }]));
        assert!(others.is_ok());
        assert!(own.unwrap_err().starts_with("invalid type: sequence, expected struct Whole"));
    }

    #[test]
    fn all_else_is_what_it_is_elsewhere() {
        let whole = json!({
            "a": 7, "b": ["Plain", { "Pair": [1, "x"] }, { "Full": { "a": true } }, { "New": {} }],
            "c": { "x": -1 }, "d": [true, "y"], "e": 2, "f": [1, { "z": null }]
        });
        let [own, others] = both::<Whole>(&whole);
        assert!(own.is_ok());
        assert_eq!(own, others);
        let wrong = [
            json!({ "a": 256 }),
            json!({ "a": "x" }),
            json!({ "b": {} }),
            json!({ "b": ["Other"] }),
            json!({ "b": ["New"] }),
            json!({ "b": [{ "Plain": 1 }] }),
            json!({ "b": [{ "Plain": null, "New": {} }] }),
            json!({ "b": [{ "Pair": [1, "x", 2] }] }),
            json!({ "b": [1.5] }),
            json!({ "c": { "x": true } }),
            json!({ "d": [true] }),
            json!({ "e": null }),
            json!({ "g": 1 }),
            json!(-1),
            json!(null),
        ];
        for wrong in wrong {
            let [own, others] = both::<Whole>(&wrong);
            assert!(own.is_err(), "{wrong}");
            assert_eq!(own, others, "{wrong}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let names =
            prop::sample::select(vec!["a", "b", "c", "d", "e", "Plain", "New", "Pair", "Full"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2_i64..300).prop_map(Value::from),
            names.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 3, move |part| {
            let members =
                prop::collection::vec((names.clone().prop_map(str::to_owned), part.clone()), 0..3);
            prop_oneof![
                prop::collection::vec(part, 0..3).prop_map(Value::from),
                members.prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
            #[test]
            fn nothing_else_is_read_otherwise(value in values()) {
                let [own, others] = both::<Vec<Kind>>(&json!([{ "New": value }]));
    let is_list = own.as_ref().is_err_and(|text| text.contains("sequence, expected struct"));
                prop_assert!(is_list || own.as_ref().ok() == others.as_ref().ok(), "{own:?}, {others:?}");
            }
        }
}
