// SPDX-License-Identifier: Apache-2.0
//! A tonic server on tokio that makes calls for each request, with tonic and reqwest. It knows nothing of tracing.
//!
//! It answers any method. /SHAPE/ID makes the gRPC calls /call/ID/0 and /call/ID/1 to GRPC_BACKEND on a connection that all share,
//! and GET BACKEND/call/ID/2.

use std::{env, future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use http::uri::PathAndQuery;
use tonic::{body::Body, Request, Response, Status};
use tonic::{client, server, server::UnaryService, service::Routes, transport::Channel, transport::Server};
use tonic_prost::ProstCodec;

struct App {
    channel: Channel,
    client: reqwest::Client,
    backend: String,
}

async fn call(app: &App, id: &str, n: u32) -> Result<(), Status> {
    let path = format!("/call/{id}/{n}");
    tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 3000)).await;
    if n < 2 {
        let mut stub = client::Grpc::new(app.channel.clone());
        stub.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let path = PathAndQuery::try_from(path).unwrap();
        stub.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await?;
        return Ok(());
    }
    let url = format!("{}{}", app.backend, path);
    app.client.get(url).send().await.unwrap().text().await.unwrap();
    Ok(())
}

/// Method is what is called, and answers.
struct Method {
    app: Arc<App>,
    path: String,
}

impl UnaryService<()> for Method {
    type Response = ();
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, Status>> + Send>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let (app, path) = (self.app.clone(), self.path.clone());
        Box::pin(async move {
            match path[1..].split_once('/') {
                Some(("sequence", id)) => {
                    for n in 0..3 {
                        call(&app, id, n).await?;
                    }
                    Ok(Response::new(()))
                }
                _ => Err(Status::unimplemented(path)),
            }
        })
    }
}

#[tokio::main]
async fn main() {
    let app = Arc::new(App {
        channel: Channel::from_shared(format!("http://{}", env::var("GRPC_BACKEND").unwrap()))
            .unwrap()
            .connect_lazy(),
        client: reqwest::Client::new(),
        backend: env::var("BACKEND").unwrap(),
    });
    let any = Router::new().fallback(move |request: http::Request<axum::body::Body>| async move {
        let method = Method {
            app,
            path: request.uri().path().to_owned(),
        };
        server::Grpc::new(ProstCodec::<(), ()>::default())
            .unary(method, request.map(Body::new))
            .await
            .map(axum::body::Body::new)
    });
    let address = format!("127.0.0.1:{}", env::var("PORT").unwrap()).parse().unwrap();
    Server::builder().add_routes(Routes::from(any)).serve(address).await.unwrap();
}
