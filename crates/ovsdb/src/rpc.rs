//! Messages of JSON-RPC 1.0, as RFC 7047 section 4 uses it.

use serde_json::{Value, json};

use crate::error::Malformed;

/// A message from a database.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// It wants an answer, with this identifier.
    Request { id: Value, method: String, params: Value },
    /// It tells something.
    Notification { method: String, params: Value },
    /// The answer to a request of ours.
    Response { id: u64, result: Result<Value, Value> },
}

impl Message {
    /// Reads a message.
    pub(crate) fn from_json(mut message: Value) -> Result<Self, Malformed> {
        let mut take = |name: &str| message.get_mut(name).map(Value::take).unwrap_or_default();
        let (id, method) = (take("id"), take("method"));
        if let Value::String(method) = method {
            let params = take("params");
            return Ok(match id {
                Value::Null => Self::Notification { method, params },
                id => Self::Request { id, method, params },
            });
        }
        let (result, error) = (take("result"), take("error"));
        let result = if error.is_null() { Ok(result) } else { Err(error) };
        match id.as_u64() {
            Some(id) => Ok(Self::Response { id, result }),
            None => Err(Malformed::new("a message with a method, or with a number as id", &id)),
        }
    }
}

/// A request of ours.
pub(crate) fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({ "id": id, "method": method, "params": params })
}

/// Our answer to the request `id`.
pub(crate) fn answer(id: &Value, result: Result<&Value, &str>) -> Value {
    let error = result.err();
    json!({ "id": id, "result": result.ok(), "error": error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_notifications_and_answers_are_told_apart() {
        let read = |message| Message::from_json(message).unwrap();
        let echo = read(json!({"id": "echo", "method": "echo", "params": []}));
        assert!(matches!(echo, Message::Request { method, .. } if method == "echo"));
        let update = read(json!({"id": null, "method": "update3", "params": [1]}));
        assert!(matches!(update, Message::Notification { params, .. } if params == json!([1])));
        let good = read(json!({"id": 3, "result": {}, "error": null}));
        assert_eq!(good, Message::Response { id: 3, result: Ok(json!({})) });
        let bad = read(json!({"id": 3, "result": null, "error": "no"}));
        assert_eq!(bad, Message::Response { id: 3, result: Err(json!("no")) });
        Message::from_json(json!({"id": "x", "result": {}})).unwrap_err();
        Message::from_json(json!([])).unwrap_err();
    }
}
