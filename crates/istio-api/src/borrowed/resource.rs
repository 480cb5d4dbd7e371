//! What discovery wraps around each resource.

use prost::Message;

use super::fields::{Fields, Malformed};
use crate::discovery::resource::CacheControl;

/// `envoy.service.discovery.v3.Resource`, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resource<'a> {
    /// Its version.
    pub version: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Other names of it.
    pub aliases: Vec<&'a str>,
    /// The encoded message, whatever type it is said to be of; `None` if there is no envelope for one.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Resource<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if the generated code would not read it either.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut resource = Self::default();
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => resource.version = field.text()?,
                2 => resource.open(field.bytes()?)?,
                3 => resource.name = field.text()?,
                4 => resource.aliases.push(field.text()?),
                // Not used, and yet it has to be what it should be.
                6 => drop(prost_types::Duration::decode(field.bytes()?)?),
                7 => drop(CacheControl::decode(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(resource)
    }

    fn open(&mut self, envelope: &'a [u8]) -> Result<(), Malformed> {
        let payload = self.payload.get_or_insert_default();
        for field in Fields::of(envelope) {
            let field = field?;
            match field.number {
                1 => drop(field.text()?),
                2 => *payload = field.bytes()?,
                _ => {}
            }
        }
        Ok(())
    }
}
