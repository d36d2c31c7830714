//! A certificate between a leaf and its trust anchor.

use super::{Certificate, CertificateRef};

/// An intermediate, and its place behind the leaf in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) certificate: Certificate,
    pub(super) number: usize,
}

impl Link {
    pub(super) fn whose(&self) -> CertificateRef {
        CertificateRef::Intermediate(self.number, self.certificate.subject())
    }
}
