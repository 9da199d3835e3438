//! Values that clients give: arguments of GraphQL fields, variables, filters in JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value, with what may name something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a truth value, or nothing.
    Scalar,
    /// A text.
    Text(Cow<'a, str>),
    /// A name that the schema lists (GraphQL specification, section 2.9.6).
    Name(&'a str),
    /// The variable of a name.
    Variable(&'a str),
    /// Values in their order.
    List(Vec<Self>),
    /// Members in their order; one may be there twice, and each counts.
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl Value<'_> {
    /// Reports whether there are objects or lists within the objects of it.
    pub(super) fn is_nested(&self) -> bool {
        match self {
            Self::Object(members) => members.iter().any(|(_, value)| value.is_compound()),
            Self::List(values) => values.iter().any(Self::is_nested),
            Self::Name(_) | Self::Scalar | Self::Text(_) | Self::Variable(_) => false,
        }
    }

    fn is_compound(&self) -> bool {
        match self {
            Self::Object(_) | Self::Variable(_) => true,
            Self::List(values) => values.iter().any(Self::is_compound),
            Self::Name(_) | Self::Scalar | Self::Text(_) => false,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Value::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Value::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Scalar)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Value::Object(members))
    }
}

/// The name of a member, borrowed where it can be.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.deserialize_str(AnyValue)? {
            Value::Text(name) => Ok(Self(name)),
            _ => Err(serde::de::Error::custom("expected a name")),
        }
    }
}
