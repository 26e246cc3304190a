//! The least that a tonic server can be.

use anyhow::Result;
use endpoints::grpc::proto::tiny_faa_s_server::{TinyFaaS, TinyFaaSServer};
use endpoints::grpc::proto::{Data, Response as Reply};
use std::net::Ipv4Addr;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

struct Echo;

#[tonic::async_trait]
impl TinyFaaS for Echo {
    async fn request(&self, request: Request<Data>) -> Result<Response<Reply>, Status> {
        let response = request.into_inner().data;
        Ok(Response::new(Reply { response }))
    }
}

#[tokio::main]
pub(super) async fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    super::tell(listener.local_addr()?)?;
    let server = tonic::transport::Server::builder().tcp_nodelay(true);
    let mut server = server;
    server
        .add_service(TinyFaaSServer::new(Echo))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
