// SPDX-License-Identifier: Apache-2.0
//! An axum server on tokio that makes calls with reqwest for each request. It knows nothing of tracing.

use axum::{extract::Path, extract::State, routing::get, Router};
use std::{env, sync::Arc, time::Duration};

struct App {
    client: reqwest::Client,
    backend: String,
}

async fn call(app: &App, id: &str, n: u32) {
    let url = format!("{}/call/{}/{}", app.backend, id, n);
    app.client.get(url).send().await.unwrap().text().await.unwrap();
}

async fn pause() {
    tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 3000)).await;
}

async fn serve(State(app): State<Arc<App>>, Path((shape, id)): Path<(String, String)>) -> &'static str {
    match shape.as_str() {
        "await" => {
            call(&app, &id, 0).await;
            call(&app, &id, 1).await;
        }
        "sleep" => {
            pause().await;
            call(&app, &id, 0).await;
            pause().await;
            call(&app, &id, 1).await;
        }
        "join" => {
            tokio::join!(call(&app, &id, 0), call(&app, &id, 1));
        }
        "spawn" => {
            for n in 0..2 {
                let (app, id) = (app.clone(), id.clone());
                tokio::spawn(async move { call(&app, &id, n).await }).await.unwrap();
            }
        }
        _ => {}
    }
    "done\n"
}

#[tokio::main]
async fn main() {
    let app = Arc::new(App {
        client: reqwest::Client::new(),
        backend: env::var("BACKEND").unwrap(),
    });
    let router = Router::new().route("/{shape}/{id}", get(serve)).with_state(app);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", env::var("PORT").unwrap())).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}
