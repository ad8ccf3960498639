//! What a page reaches that a function answers, in the browser of whoever looks at it.

use reqwest::Method;
use serde_json::json;

use super::server;
use crate::support::{Reply, has_docker, node};

const PAGE: &str =
    "module.exports = { http: (req, res) => res.end('<script>fetch(\"/functions\")</script>') }";

#[tokio::test]
async fn a_page_of_a_function_calls_functions_and_manages_none() {
    if !has_docker("e2e pages of functions") {
        return;
    }
    let server = server().await;
    server.deploy("page", node(PAGE, json!({}))).await;
    let origin = server.url("").trim_end_matches('/').to_owned();
    // What browsers send with a request of a page of this very server.
    let of_page = async |method: Method, path: &str, header: (&str, &str)| {
        let request = server.request(method, path).header(header.0, header.1);
        Reply::of(request.send().await.unwrap()).await
    };
    for header in [
        ("origin", origin.as_str()),
        ("sec-fetch-site", "same-origin"),
    ] {
        of_page(Method::GET, "/function/page/", header)
            .await
            .expect(200);
        for (method, path) in [
            (Method::GET, "/functions"),
            (Method::GET, "/functions/page"),
            (Method::GET, "/functions/page/logs"),
            (Method::GET, "/status"),
            (Method::PUT, "/functions/page"),
            (Method::DELETE, "/functions/page"),
            (Method::POST, "/functions"),
        ] {
            let reply = of_page(method, path, header).await;
            reply.refused(403, "ForeignOrigin");
        }
    }
    // Somebody who types the address is no page.
    let typed = ("sec-fetch-site", "none");
    of_page(Method::GET, "/functions/page", typed)
        .await
        .expect(200);
    server.delete("/functions/page").await.expect(202);
}
