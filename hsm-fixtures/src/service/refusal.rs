//! Why a CreateSession request got no credentials: what the client is told, and what we know.

/// A refused request: the answer's shape is the real service's, the reason is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    /// What the client reads; in the real service's words where these are known.
    pub(crate) message: String,
    /// The exact rule that was broken, for the log and for tests.
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Validation,
    AccessDenied,
    ResourceNotFound,
    /// What AWS's JSON services answer to a method and path that they do not have.
    UnknownOperation,
    /// A request for another host. That AWS answers so is a guess: such a request does not reach it.
    Misdirected,
}

impl Kind {
    pub(crate) fn status(self) -> u16 {
        match self {
            Kind::Validation => 400,
            Kind::AccessDenied => 403,
            Kind::ResourceNotFound | Kind::UnknownOperation => 404,
            Kind::Misdirected => 421,
        }
    }

    /// The value of `x-amzn-ErrorType`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Validation => "ValidationException",
            Kind::AccessDenied => "AccessDeniedException",
            Kind::ResourceNotFound => "ResourceNotFoundException",
            Kind::UnknownOperation => "UnknownOperationException",
            Kind::Misdirected => "MisdirectedRequestException",
        }
    }
}

impl Refusal {
    /// A request that is not well formed: message and reason are the same.
    pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal {
            kind: Kind::Validation,
            reason: message.clone(),
            message,
        }
    }

    /// A well-formed request that must not succeed; the client learns less than the log.
    pub(crate) fn denied(message: impl Into<String>, reason: impl Into<String>) -> Refusal {
        Refusal {
            kind: Kind::AccessDenied,
            message: message.into(),
            reason: reason.into(),
        }
    }

    /// The leaf itself is unfit. These are the service's words where keyUsage lacks digitalSignature (several accounts of
    /// people who set Roles Anywhere up); that it uses them for every fault of the leaf is a guess.
    pub(crate) fn unfit_leaf(reason: impl Into<String>) -> Refusal {
        Refusal::denied("Untrusted certificate. Insufficient certificate", reason)
    }

    /// No path from the leaf to the trust anchor (rolesanywhere-credential-helper, issue 108).
    pub(crate) fn untrusted(reason: impl Into<String>) -> Refusal {
        Refusal::denied("Untrusted Signing Certificate", reason)
    }

    /// A certificate of the path is on a CRL (serverless-ca's guide to revocation shows it).
    pub(crate) fn revoked(reason: impl Into<String>) -> Refusal {
        Refusal::denied("Certificate revoked", reason)
    }

    /// The role's trust policy does not let Roles Anywhere in: these are the service's words, alike for a condition that
    /// does not hold and for each action that is missing (accounts of people who met both). That a role which is not
    /// there, or which the profile does not list, gets them too is a guess.
    pub(crate) fn unable_to_assume(role: &str, reason: impl Into<String>) -> Refusal {
        Refusal::denied(format!("Unable to assume role for {role}"), reason)
    }

    /// The signature does not fit (rolesanywhere-credential-helper, issue 128).
    pub(crate) fn bad_signature(reason: impl Into<String>) -> Refusal {
        Refusal::denied("Invalid signature", reason)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal {
            kind: Kind::ResourceNotFound,
            reason: message.clone(),
            message,
        }
    }

    /// A request whose Host is not the service's own (RFC 9110, 15.5.20).
    pub(crate) fn misdirected(reason: impl Into<String>) -> Refusal {
        Refusal {
            kind: Kind::Misdirected,
            message: "Misdirected request".to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn unknown_operation(method: &str, path: &str) -> Refusal {
        let message = format!("no operation {method} {path}");
        Refusal {
            kind: Kind::UnknownOperation,
            reason: message.clone(),
            message,
        }
    }
}
