//! Workloads, and the message that is either one or a service.

use std::borrow::Cow;

use prost::Message;

use super::fields::{Fields, Malformed};
use crate::workload::{ApplicationTunnel, Extension, GatewayAddress, Port, Service};

/// `istio.workload.Address`. There are few services, which is why they are not read by us.
#[derive(Debug, Clone, PartialEq)]
pub enum Address<'a> {
    /// An endpoint.
    Workload(Box<Workload<'a>>),
    /// A name for a set of them.
    Service(Box<Service>),
}

impl<'a> Address<'a> {
    /// Reads one; `None` if it is neither.
    ///
    /// # Errors
    /// [`Malformed`] if the generated code would not read it either.
    pub fn read(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut address = None;
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                // Parts of one workload are put together; the later of two kinds counts.
                1 => {
                    let mut workload = match address.take() {
                        Some(Self::Workload(workload)) => workload,
                        _ => Box::default(),
                    };
                    workload.merge(field.bytes()?)?;
                    address = Some(Self::Workload(workload));
                }
                2 => {
                    let mut service = match address.take() {
                        Some(Self::Service(service)) => service,
                        _ => Box::default(),
                    };
                    service.merge(field.bytes()?)?;
                    address = Some(Self::Service(service));
                }
                _ => {}
            }
        }
        Ok(address)
    }
}

/// `istio.workload.Workload`; what each field means is in `proto/workload.proto`.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "documented in proto/workload.proto")]
pub struct Workload<'a> {
    pub uid: &'a str,
    pub name: &'a str,
    pub namespace: &'a str,
    pub network: &'a str,
    pub trust_domain: &'a str,
    pub service_account: &'a str,
    pub node: &'a str,
    pub canonical_name: &'a str,
    pub canonical_revision: &'a str,
    pub workload_name: &'a str,
    pub cluster_id: &'a str,
    pub hostname: &'a str,
    pub addresses: Vec<&'a [u8]>,
    pub tunnel_protocol: i32,
    pub workload_type: i32,
    pub status: i32,
    pub network_mode: i32,
    pub native_tunnel: bool,
    pub authorization_policies: Vec<&'a str>,
    /// By key, each key once.
    pub services: Vec<Membership<'a>>,
    pub waypoint: Option<GatewayAddress>,
    pub network_gateway: Option<GatewayAddress>,
    pub application_tunnel: Option<ApplicationTunnel>,
    pub region: &'a str,
    pub zone: &'a str,
    pub subzone: &'a str,
    pub capacity: Option<u32>,
}

/// A service that a workload is an endpoint of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership<'a> {
    /// `namespace/hostname`.
    pub service: &'a str,
    /// On which ports.
    pub ports: Ports<'a>,
}

/// `istio.workload.PortList`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ports<'a>(Cow<'a, [u8]>);

impl<'a> Workload<'a> {
    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => self.name = field.text()?,
                2 => self.namespace = field.text()?,
                3 => self.addresses.push(field.bytes()?),
                4 => self.network = field.text()?,
                5 => self.tunnel_protocol = field.enumeration()?,
                6 => self.trust_domain = field.text()?,
                7 => self.service_account = field.text()?,
                8 => field.merge_into(&mut self.waypoint)?,
                9 => self.node = field.text()?,
                10 => self.canonical_name = field.text()?,
                11 => self.canonical_revision = field.text()?,
                12 => self.workload_type = field.enumeration()?,
                13 => self.workload_name = field.text()?,
                14 => self.native_tunnel = field.flag()?,
                16 => self.authorization_policies.push(field.text()?),
                17 => self.status = field.enumeration()?,
                18 => self.cluster_id = field.text()?,
                19 => field.merge_into(&mut self.network_gateway)?,
                20 => self.uid = field.text()?,
                21 => self.hostname = field.text()?,
                22 => self.join(Membership::read(field.bytes()?)?),
                23 => field.merge_into(&mut self.application_tunnel)?,
                24 => self.locate(field.bytes()?)?,
                25 => self.network_mode = field.enumeration()?,
                26 => drop(Extension::decode(field.bytes()?)?),
                27 => field.merge_into(&mut self.capacity)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn locate(&mut self, place: &'a [u8]) -> Result<(), Malformed> {
        for field in Fields::of(place) {
            let field = field?;
            match field.number {
                1 => self.region = field.text()?,
                2 => self.zone = field.text()?,
                3 => self.subzone = field.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn join(&mut self, membership: Membership<'a>) {
        match self.services.binary_search_by_key(&membership.service, |known| known.service) {
            Ok(index) => self.services[index] = membership,
            Err(index) => self.services.insert(index, membership),
        }
    }
}

impl<'a> Membership<'a> {
    fn read(entry: &'a [u8]) -> Result<Self, Malformed> {
        let mut membership = Self { service: "", ports: Ports::default() };
        for field in Fields::of(entry) {
            let field = field?;
            match field.number {
                1 => membership.service = field.text()?,
                2 => membership.ports.merge(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(membership)
    }
}

impl<'a> Ports<'a> {
    /// Service port and target port of each, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let ports = Fields::of(&self.0).filter_map(|field| port(field).ok()?);
        ports.map(|port| (port.service_port, port.target_port))
    }

    /// Lists laid end to end are one list.
    fn merge(&mut self, list: &'a [u8]) -> Result<(), Malformed> {
        Fields::of(list).try_for_each(|field| port(field).map(drop))?;
        match &mut self.0 {
            Cow::Borrowed(former) if former.is_empty() => *former = list,
            former => former.to_mut().extend_from_slice(list),
        }
        Ok(())
    }
}

/// A port, if the field is one.
fn port(field: Result<super::fields::Field<'_>, Malformed>) -> Result<Option<Port>, Malformed> {
    let field = field?;
    if field.number != 1 {
        return Ok(None);
    }
    let mut port = Port::default();
    for field in Fields::of(field.bytes()?) {
        let field = field?;
        match field.number {
            1 => port.service_port = field.unsigned()?,
            2 => port.target_port = field.unsigned()?,
            3 => port.app_protocol = field.enumeration()?,
            _ => {}
        }
    }
    Ok(Some(port))
}
