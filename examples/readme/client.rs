//! The client of the README: an order that is placed once, however often it is sent.
//!
//! ```text
//! cargo run -p refrain-examples --features readme --example readme-client
//! ```

#![expect(clippy::print_stdout, reason = "it says what the server answered")]

use http_body_util::{BodyExt, Full};
use refrain::client::{ClientLayer, Reqwest};
use tower::{Layer, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = ClientLayer::new().layer(Reqwest::new(reqwest::Client::builder())?);
    let request = http::Request::post("http://127.0.0.1:8080/orders")
        .header("authorization", "Bearer YOUR_API_KEY")
        .body(Full::<bytes::Bytes>::from("a bicycle"))?;
    let response = client.oneshot(request).await?; // retries what is lost, under one key
    println!("{:?}", response.into_body().collect().await?.to_bytes());
    Ok(())
}
