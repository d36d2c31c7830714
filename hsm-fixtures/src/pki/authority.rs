//! A CA: its certificate, its key, and what it signs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, PKeyRef, Private, Public};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, CrlNumber, ExtendedKeyUsage, KeyUsage,
    SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Crl, X509CrlBuilder, X509Name, X509RevokedBuilder};

use super::leaf_spec::{BACKDATE, LeafSpec, Purpose};
use crate::private_file::write_private;

const CRL_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);

pub(super) struct Authority {
    pub(super) certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    pub(super) fn root(name: &str) -> Result<Authority> {
        let key = generate_key()?;
        let subject = subject(name, None)?;
        let mut builder = ca_builder(&subject, &key)?;
        builder.set_issuer_name(&subject)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(identifier)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Authority {
            certificate: builder.build(),
            key,
        })
    }

    pub(super) fn below(issuer: &Authority, name: &str) -> Result<Authority> {
        let key = generate_key()?;
        let mut builder = ca_builder(&subject(name, None)?, &key)?;
        issuer.sign(&mut builder, MessageDigest::sha256())?;
        Ok(Authority {
            certificate: builder.build(),
            key,
        })
    }

    pub(super) fn issue(&self, key: &PKeyRef<Public>, spec: &LeafSpec) -> Result<X509> {
        let mut builder = X509::builder()?;
        // The field counts from zero: 2 is version 3.
        builder.set_version(i32::from(spec.version) - 1)?;
        let subject = subject(&spec.common_name, spec.organization.as_deref())?;
        builder.set_subject_name(&subject)?;
        builder.set_pubkey(key)?;
        set_serial(&mut builder, spec.serial)?;
        set_validity(&mut builder, spec.not_before, spec.not_after)?;
        if spec.version == 1 {
            builder.set_issuer_name(self.certificate.subject_name())?;
            builder.sign(&self.key, spec.digest.message_digest())?;
        } else {
            append_leaf_extensions(&mut builder, spec)?;
            self.sign(&mut builder, spec.digest.message_digest())?;
        }
        Ok(builder.build())
    }

    /// A list that says these serials are revoked; as its number, the second in which it was issued.
    pub(super) fn revoke(&self, serials: &[&str], issued: Timestamp) -> Result<X509Crl> {
        let issued = issued.as_second();
        let from = Asn1Time::from_unix(issued)?;
        let until = Asn1Time::from_unix(issued + CRL_LIFETIME.as_secs())?;
        let mut builder = X509CrlBuilder::new()?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.set_last_update(&from)?;
        builder.set_next_update(&until)?;
        for serial in serials {
            let number = BigNum::from_dec_str(serial)
                .with_context(|| format!("no serial in decimal: {serial}"))?;
            let mut revoked = X509RevokedBuilder::new()?;
            revoked.set_serial_number(Asn1Integer::from_bn(&number)?.as_ref())?;
            revoked.set_revocation_date(&from)?;
            builder.add_revoked(revoked.build())?;
        }
        let any = X509::builder()?;
        let context = any.x509v3_context(Some(&self.certificate), None);
        builder.append_extension(AuthorityKeyIdentifier::new().keyid(true).build(&context)?)?;
        let number = BigNum::from_dec_str(&issued.to_string())?;
        builder.append_extension(CrlNumber::new(number)?.build()?)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build()?)
    }

    /// Adds issuer and key identifiers, then signs.
    fn sign(&self, builder: &mut X509Builder, digest: MessageDigest) -> Result<()> {
        builder.set_issuer_name(self.certificate.subject_name())?;
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let subject_identifier = SubjectKeyIdentifier::new().build(&context)?;
        let authority_identifier = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        builder.append_extension(subject_identifier)?;
        builder.append_extension(authority_identifier)?;
        builder.sign(&self.key, digest)?;
        Ok(())
    }

    pub(super) fn write(&self, dir: &Path, name: &str) -> Result<()> {
        let certificate = dir.join(name).with_extension("pem");
        fs::write(&certificate, self.certificate.to_pem()?)
            .with_context(|| format!("cannot write {}", certificate.display()))?;
        write_private(
            &dir.join(name).with_extension("key"),
            &self.key.private_key_to_pem_pkcs8()?,
        )
    }

    pub(super) fn read(dir: &Path, name: &str) -> Result<Authority> {
        let read = |extension| {
            let path = dir.join(name).with_extension(extension);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Authority {
            certificate: X509::from_pem(&read("pem")?)
                .with_context(|| format!("{name}.pem is no certificate"))?,
            key: PKey::private_key_from_pem(&read("key")?)
                .with_context(|| format!("{name}.key is no private key"))?,
        })
    }
}

fn ca_builder(subject: &X509Name, key: &PKeyRef<Private>) -> Result<X509Builder> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_subject_name(subject)?;
    builder.set_pubkey(key)?;
    set_serial(&mut builder, None)?;
    let now = Timestamp::now();
    set_validity(&mut builder, now - BACKDATE, now + CA_LIFETIME)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.append_extension(
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?,
    )?;
    Ok(builder)
}

fn append_leaf_extensions(builder: &mut X509Builder, spec: &LeafSpec) -> Result<()> {
    if let Some(ca) = spec.basic_constraints {
        let mut constraints = BasicConstraints::new();
        constraints.critical();
        if ca {
            constraints.ca();
        }
        builder.append_extension(constraints.build()?)?;
    }
    let mut usage = KeyUsage::new();
    usage.critical();
    if spec.digital_signature {
        usage.digital_signature();
    } else {
        usage.key_encipherment();
    }
    builder.append_extension(usage.build()?)?;
    if let Some(purpose) = spec.extended_key_usage {
        let mut extended = ExtendedKeyUsage::new();
        match purpose {
            Purpose::ClientAuth => extended.client_auth(),
            Purpose::ServerAuth => extended.server_auth(),
        };
        builder.append_extension(extended.build()?)?;
    }
    if !spec.dns_names.is_empty() || !spec.ip_addresses.is_empty() {
        let mut names = SubjectAlternativeName::new();
        for name in &spec.dns_names {
            names.dns(name);
        }
        for address in &spec.ip_addresses {
            names.ip(address);
        }
        let extension = names.build(&builder.x509v3_context(None, None))?;
        builder.append_extension(extension)?;
    }
    Ok(())
}

fn subject(common_name: &str, organization: Option<&str>) -> Result<X509Name> {
    let mut name = X509Name::builder()?;
    if let Some(organization) = organization {
        name.append_entry_by_nid(Nid::ORGANIZATIONNAME, organization)?;
    }
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

fn set_serial(builder: &mut X509Builder, serial: Option<u128>) -> Result<()> {
    let number = match serial {
        Some(serial) => BigNum::from_slice(&serial.to_be_bytes())?,
        None => {
            let mut random = BigNum::new()?;
            random.rand(127, MsbOption::MAYBE_ZERO, false)?;
            random
        }
    };
    builder.set_serial_number(Asn1Integer::from_bn(&number)?.as_ref())?;
    Ok(())
}

fn set_validity(
    builder: &mut X509Builder,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<()> {
    builder.set_not_before(Asn1Time::from_unix(not_before.as_second())?.as_ref())?;
    builder.set_not_after(Asn1Time::from_unix(not_after.as_second())?.as_ref())?;
    Ok(())
}

pub(super) fn generate_key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}
