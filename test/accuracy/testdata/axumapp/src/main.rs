// SPDX-License-Identifier: Apache-2.0
//! An axum server on tokio that makes calls with reqwest for each request. It knows nothing of tracing.

use axum::{extract::Path, extract::State, routing::get, Router};
use std::{env, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, Mutex, OnceCell, Semaphore};
use tokio::{runtime, task};

/// Job is a call that a worker makes, and whom it tells when it is done.
type Job = (String, u32, oneshot::Sender<()>);

struct App {
    client: reqwest::Client,
    /// One that keeps two connections at most, and makes new ones for the rest.
    few: reqwest::Client,
    backend: String,
    permits: Semaphore,
    jobs: mpsc::UnboundedSender<Job>,
    late: OnceCell<mpsc::UnboundedSender<Job>>,
}

async fn call(app: &App, id: &str, n: u32) {
    call_by(&app.client, &app.backend, id, n).await;
}

async fn call_by(client: &reqwest::Client, backend: &str, id: &str, n: u32) {
    let url = format!("{backend}/call/{id}/{n}");
    client.get(url).send().await.unwrap().text().await.unwrap();
}

/// queue starts workers that take jobs from a queue.
fn queue(client: &reqwest::Client, backend: &str) -> mpsc::UnboundedSender<Job> {
    let (jobs, rest) = mpsc::unbounded_channel::<Job>();
    let rest = Arc::new(Mutex::new(rest));
    for _ in 0..8 {
        let (rest, client, backend) = (rest.clone(), client.clone(), backend.to_owned());
        tokio::spawn(async move {
            loop {
                let Some((id, n, done)) = rest.lock().await.recv().await else { return };
                call_by(&client, &backend, &id, n).await;
                let _ = done.send(());
            }
        });
    }
    jobs
}

async fn ask(jobs: &mpsc::UnboundedSender<Job>, id: &str, n: u32) {
    let (done, wait) = oneshot::channel();
    jobs.send((id.to_owned(), n, done)).unwrap();
    wait.await.unwrap();
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
        "blocking" => {
            for n in 0..2 {
                let (app, id) = (app.clone(), id.clone());
                let here = runtime::Handle::current();
                task::spawn_blocking(move || here.block_on(call(&app, &id, n))).await.unwrap();
            }
        }
        "few" => {
            call_by(&app.few, &app.backend, &id, 0).await;
            call_by(&app.few, &app.backend, &id, 1).await;
        }
        "fewspawn" => {
            for n in 0..2 {
                let (app, id) = (app.clone(), id.clone());
                tokio::spawn(async move { call_by(&app.few, &app.backend, &id, n).await }).await.unwrap();
            }
        }
        "permit" => {
            for n in 0..2 {
                let (app, id) = (app.clone(), id.clone());
                tokio::spawn(async move {
                    let _permit = app.permits.acquire().await.unwrap();
                    call(&app, &id, n).await
                })
                .await
                .unwrap();
            }
        }
        "queue" => {
            ask(&app.jobs, &id, 0).await;
            ask(&app.jobs, &id, 1).await;
        }
        "late" => {
            let jobs = app.late.get_or_init(|| async { queue(&app.client, &app.backend) }).await;
            ask(jobs, &id, 0).await;
            ask(jobs, &id, 1).await;
        }
        _ => {}
    }
    "done\n"
}

async fn run() {
    let (client, backend) = (reqwest::Client::new(), env::var("BACKEND").unwrap());
    let app = Arc::new(App {
        few: reqwest::Client::builder().pool_max_idle_per_host(2).build().unwrap(),
        jobs: queue(&client, &backend),
        late: OnceCell::new(),
        permits: Semaphore::new(4),
        client,
        backend,
    });
    let router = Router::new().route("/{shape}/{id}", get(serve)).with_state(app);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", env::var("PORT").unwrap())).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

/// main runs it on as many threads as there are processors, or, where ONE_THREAD is set, on a single one.
fn main() {
    let mut builder = match env::var("ONE_THREAD") {
        Ok(_) => runtime::Builder::new_current_thread(),
        Err(_) => runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(run());
}
