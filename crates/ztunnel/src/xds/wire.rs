//! The requests of discovery as protobuf (spec wire-protocols 2 and 6.3).

use std::collections::BTreeMap;

use istio_api::discovery::{DeltaDiscoveryRequest, Node, Status};
use prost_types::value::Kind as ValueKind;
use prost_types::{ListValue, Struct, Value};

use super::subscription::{Kind, Request};

/// Who we are, as the control plane is told at the start of every stream.
#[derive(Debug, Clone, Default)]
pub struct NodeDescription {
    /// `ztunnel~IP~POD.NAMESPACE~NAMESPACE.svc.cluster.local`.
    pub id: String,
    /// Texts by their keys.
    pub metadata: BTreeMap<String, String>,
    /// Values of any form; they overwrite texts of the same key.
    pub structured: BTreeMap<String, serde_json::Value>,
}

impl NodeDescription {
    fn node(&self) -> Node {
        let text = |text: &String| Value { kind: Some(ValueKind::StringValue(text.clone())) };
        let texts = self.metadata.iter().map(|(key, value)| (key.clone(), text(value)));
        let others = self.structured.iter().map(|(key, json)| (key.clone(), value(json)));
        let metadata = Struct { fields: texts.chain(others).collect() };
        Node { id: self.id.clone(), metadata: Some(metadata), ..Node::default() }
    }
}

/// JSON as a protobuf value. Nesting is bounded by the parser that made it.
fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => ValueKind::NullValue(0),
        Json::Bool(flag) => ValueKind::BoolValue(*flag),
        Json::Number(number) => ValueKind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => ValueKind::StringValue(text.clone()),
        Json::Array(list) => ValueKind::ListValue(ListValue { values: list.iter().map(value).collect() }),
        Json::Object(map) => {
            ValueKind::StructValue(Struct { fields: map.iter().map(|(k, v)| (k.clone(), value(v))).collect() })
        }
    };
    Value { kind: Some(kind) }
}

/// A request as it is sent.
pub(super) fn request(request: Request, node: &NodeDescription) -> DeltaDiscoveryRequest {
    let names = |names: Vec<std::sync::Arc<str>>| names.iter().map(|name| name.to_string()).collect();
    match request {
        Request::Open { kind, subscribe, unsubscribe, versions } => DeltaDiscoveryRequest {
            node: Some(node.node()),
            type_url: kind.url().to_owned(),
            resource_names_subscribe: names(subscribe),
            resource_names_unsubscribe: names(unsubscribe),
            initial_resource_versions: versions.into_iter().map(|(n, v)| (n.to_string(), v.into())).collect(),
            ..DeltaDiscoveryRequest::default()
        },
        Request::Subscribe(more) => DeltaDiscoveryRequest {
            type_url: Kind::Address.url().to_owned(),
            resource_names_subscribe: names(more),
            ..DeltaDiscoveryRequest::default()
        },
        Request::Settle { url, nonce, error } => DeltaDiscoveryRequest {
            type_url: url,
            response_nonce: nonce,
            error_detail: error.map(|message| Status { message, ..Status::default() }),
            ..DeltaDiscoveryRequest::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_told_with_the_first_request_only() {
        let description = NodeDescription {
            id: "ztunnel~1.1.1.1~a.b~b.svc.cluster.local".into(),
            metadata: [("NAME".into(), "a".into()), ("X".into(), "text".into())].into(),
            structured: [("X".into(), serde_json::json!({"a": [1, null, true]}))].into(),
        };
        let open = Request::Open {
            kind: Kind::Address,
            subscribe: vec![],
            unsubscribe: vec![],
            versions: [("a".into(), "1".into())].into(),
        };
        let first = request(open, &description);
        assert_eq!(first.initial_resource_versions["a"], "1");
        let node = first.node.unwrap();
        assert_eq!(node.id, description.id);
        let fields = node.metadata.unwrap().fields;
        assert_eq!(fields["NAME"].kind, Some(ValueKind::StringValue("a".into())));
        let Some(ValueKind::StructValue(x)) = &fields["X"].kind else { panic!("{fields:?}") };
        let Some(ValueKind::ListValue(list)) = &x.fields["a"].kind else { panic!("{x:?}") };
        let kinds: Vec<_> = list.values.iter().map(|v| v.kind.clone().unwrap()).collect();
        assert_eq!(kinds, [ValueKind::NumberValue(1.0), ValueKind::NullValue(0), ValueKind::BoolValue(true)]);

        let nack = Request::Settle { url: "u".into(), nonce: "n".into(), error: Some("a: odd".into()) };
        let nack = request(nack, &description);
        assert_eq!((nack.node, nack.response_nonce.as_str()), (None, "n"));
        assert_eq!(nack.error_detail.unwrap().message, "a: odd");
    }
}
