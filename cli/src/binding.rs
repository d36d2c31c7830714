//! What of a certificate a role is bound to.

use std::fmt;

use clap::ValueEnum;
use rolesanywhere::certificate::SessionFacts;

/// A property of the certificate, by the principal tag that AWS makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The subject's common name
    Cn,
    /// The subject's organization
    O,
    /// The subject's organizational units, all of them
    Ou,
    /// The first DNS name
    Dns,
    /// The first URI, such as a SPIFFE ID
    Uri,
    /// The common name of the first directory name
    NameCn,
    /// The issuer's common name: only of that CA below the trust anchor
    IssuerCn,
}

/// The tags that a session must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Tag names and values, such as `x509Subject/CN`.
    pub(crate) tags: Vec<(&'static str, String)>,
    /// The issuer's common name, where nothing binds to it.
    other_issuers_than: Option<String>,
}

impl Binding {
    /// To these properties; without any, to the one that names the workload best.
    pub(crate) fn of(facts: &SessionFacts, by: &[By]) -> Result<Binding, String> {
        let by: Vec<By> = match by {
            [] => [By::Cn, By::Uri, By::Dns]
                .into_iter()
                .find(|by| facts.tag(by.tag()).is_some())
                .into_iter()
                .collect(),
            by => by.to_vec(),
        };
        if by.is_empty() {
            return Err(
                "AWS makes no tag of the certificate's common name, URI or DNS name: there is \
                 nothing to bind a role to"
                    .to_owned(),
            );
        }
        let mut tags: Vec<(&'static str, String)> = Vec::new();
        for by in by {
            let value = facts
                .tag(by.tag())
                .ok_or_else(|| missing(facts, by.tag()))?;
            if !tags.iter().any(|(tag, _)| *tag == by.tag()) {
                tags.push((by.tag(), value.to_owned()));
            }
        }
        let issuer = By::IssuerCn.tag();
        let other_issuers_than = match tags.iter().any(|(tag, _)| *tag == issuer) {
            true => None,
            false => facts.tag(issuer).map(str::to_owned),
        };
        Ok(Binding {
            tags,
            other_issuers_than,
        })
    }

    /// To a common name, of which there is no certificate yet.
    pub(crate) fn to_common_name(name: String) -> Binding {
        Binding {
            tags: vec![(By::Cn.tag(), name)],
            other_issuers_than: None,
        }
    }
}

fn missing(facts: &SessionFacts, tag: &str) -> String {
    let why = facts.left_out.iter().find(|(name, _)| name == tag);
    let why = why.map_or("the certificate has none", |(_, why)| why);
    let tags: Vec<&str> = facts.tags.iter().map(|tag| tag.name.as_str()).collect();
    format!(
        "AWS sets no tag {tag}: {why}; choose with --by one of {}",
        tags.join(", ")
    )
}

impl By {
    fn tag(self) -> &'static str {
        match self {
            By::Cn => "x509Subject/CN",
            By::O => "x509Subject/O",
            By::Ou => "x509Subject/OU",
            By::Dns => "x509SAN/DNS",
            By::Uri => "x509SAN/URI",
            By::NameCn => "x509SAN/Name/CN",
            By::IssuerCn => "x509Issuer/CN",
        }
    }
}

/// A sentence: whom the role is for.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let tags: Vec<String> = self
            .tags
            .iter()
            .map(|(tag, value)| format!("{tag} = {value:?}"))
            .collect();
        write!(
            f,
            "the role is for certificates with {}",
            tags.join(" and ")
        )?;
        match &self.other_issuers_than {
            Some(issuer) => write!(
                f,
                "\nfrom any CA below the trust anchor (--by issuer-cn in addition: only from {issuer:?})"
            ),
            None => Ok(()),
        }
    }
}
