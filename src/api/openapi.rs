//! The API, described for programs.

use serde_json::{Value, json};

/// The OpenAPI 3.1 document.
pub fn document() -> Value {
    json!({"openapi": "3.1.0", "info": {"title": "faas", "version": env!("CARGO_PKG_VERSION")}, "paths": {}})
}
