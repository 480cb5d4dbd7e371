//! The CA (spec identity-and-tls 2, "What istiod does with it").

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use istio_api::ca::istio_certificate_service_server::IstioCertificateService;
use istio_api::ca::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::value::Kind;
use tonic::{Request, Response, Status};

use super::{Fault, Issued, Shared};

/// What certificates are dated to.
const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Ca(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl IstioCertificateService for Ca {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.0.count(|tally| tally.requests += 1);
        self.0.admits(request.metadata())?;
        let request = request.into_inner();
        let now = self.0.behaviour.borrow().clone();
        match now.ca {
            Fault::Refuse => return Err(Status::unavailable("the CA refuses")),
            Fault::Silent => pending().await,
            Fault::Slow(time) => tokio::time::sleep(time).await,
            Fault::Garbage => {
                let cert_chain = vec!["garbage".to_owned(), "more garbage".to_owned()];
                return Ok(Response::new(IstioCertificateResponse { cert_chain }));
            }
            Fault::None | Fault::WrongSan | Fault::Expired => {}
        }
        let identity = self.identity(&request)?;
        let identity = if now.ca == Fault::WrongSan { "spiffe://cluster.local/ns/other/sa/other" } else { &identity };
        let asked = Duration::from_secs(request.validity_duration.try_into().unwrap_or_default());
        let ttl = if now.ca == Fault::Expired { Duration::ZERO } else { asked.min(now.ttl) };
        let signed = now.signer.sign(&request.csr, identity, ttl);
        let (leaf, serial) = signed.map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.0.count(|tally| {
            tally.certificates += 1;
            if now.ca == Fault::None {
                let at = SystemTime::now();
                let until = at + ttl.saturating_sub(SECOND);
                tally.issued.push(Issued { identity: identity.to_owned(), serial, at, until });
            }
        });
        let roots = now.roots.iter().map(|root| root.pem()).collect();
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf, roots] }))
    }
}

impl Ca {
    /// On whose behalf is asked: a pod of the mesh has to have that account.
    fn identity(&self, request: &IstioCertificateRequest) -> Result<String, Status> {
        let fields = request.metadata.as_ref().map(|metadata| &metadata.fields);
        let value = fields.and_then(|fields| fields.get("ImpersonatedIdentity")?.kind.as_ref());
        let Some(Kind::StringValue(identity)) = value else {
            return Err(Status::unauthenticated("request authenticate failure"));
        };
        let parts: Vec<&str> = identity.split('/').collect();
        match parts.as_slice() {
            ["spiffe:", "", _, "ns", namespace, "sa", account]
                if self.0.world.control_plane().has_account(namespace, account) =>
            {
                Ok(identity.clone())
            }
            _ => Err(Status::unauthenticated("request impersonation authentication failure")),
        }
    }
}
