//! gRPC, beside HTTP: episodes, the controls of a server, reflection and health.

mod control;
mod episodes;
mod status;

use crate::http::Server;
use control::Control;
use episodes::Episodes;
use proto::control_server::ControlServer;
use proto::episodes_server::EpisodesServer;
use status::status;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_health::ServingStatus;

/// All that is served, as health calls it.
const SERVER: &str = "";

/// Serves until `stop` says so.
pub async fn serve(listener: TcpListener, server: Arc<Server>, mut stop: watch::Receiver<bool>) {
    let contract = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Python's client, and many a tool, knows the older one alone.
    let reflections = contract().build_v1().and_then(|v1| Ok((v1, contract().build_v1alpha()?)));
    let (reflection, reflection_of_old) = match reflections {
        Ok(reflections) => reflections,
        Err(error) => return tracing::error!(%error, "gRPC does not start"),
    };
    let (health, healthy) = tonic_health::server::health_reporter();
    health.set_serving::<EpisodesServer<Episodes>>().await;
    health.set_serving::<ControlServer<Control>>().await;
    let most = server.limits.max_body_bytes;
    let keys = server.clone();
    let guard = move |request: Request<()>| {
        let headers = request.metadata().clone().into_headers();
        server_key(&keys, &headers)?;
        Ok::<_, Status>(request)
    };
    let episodes = EpisodesServer::new(Episodes(server.clone())).max_decoding_message_size(most);
    let control = ControlServer::new(Control(server)).max_decoding_message_size(most);
    let stopped = async move {
        // An error says that nobody can say it any more: then it is over, too.
        drop(stop.wait_for(|stop| *stop).await);
        // Whoever watches hears of it, though calls that have begun go on.
        for service in [SERVER, EpisodesServer::<Episodes>::NAME, ControlServer::<Control>::NAME] {
            health.set_service_status(service, ServingStatus::NotServing).await;
        }
    };
    let serving = tonic::transport::Server::builder()
        .add_service(healthy)
        .add_service(reflection)
        .add_service(reflection_of_old)
        .add_service(InterceptedService::new(episodes, guard.clone()))
        .add_service(InterceptedService::new(control, guard))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped);
    if let Err(error) = serving.await {
        tracing::error!(%error, "gRPC broke off");
    }
}

fn server_key(server: &Server, headers: &hyper::HeaderMap) -> Result<(), Status> {
    crate::http::key(headers, &server.limits.api_key).map_err(|refusal| status(&refusal))
}
