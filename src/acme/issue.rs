//! One attempt to get a certificate: account, order, challenges, certificate (RFC 8555 section 7).

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::failure::Failure;
use super::http::Https;
use super::pending::Pending;
use super::settings::{Challenge, Settings};
use super::store::{SavedAccount, Store};
use crate::cert::{self, challenge, provider};
use crate::system::clock;

/// Polls of an order: after a quarter of a second, and then less and less often.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// How far this host's clock may be behind that of the authority, in seconds.
const CLOCK_BEHIND: i64 = 86_400;

/// A certificate and its key as PEM.
pub struct Issued {
    pub chain: String,
    pub key: String,
    /// Its validity in seconds since 1970.
    pub validity: (u64, u64),
}

/// Returns the account with the authority, which is made if there is none.
///
/// # Errors
/// The authority refuses, or the account cannot be saved.
pub async fn account(settings: &Settings, store: &Store, https: &Https) -> Result<Account, Failure> {
    let builder = || Account::builder_with_http(Box::new(https.clone()));
    let wanted: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    match store.account().filter(|saved| saved.directory == settings.directory) {
        Some(saved) => {
            let is_current = saved.contact == settings.contact;
            let value = serde_json::to_value(&saved.credentials).map_err(instant_acme::Error::from)?;
            let account = builder().from_credentials(saved.credentials).await?;
            if !is_current {
                account.update_contacts(&wanted).await?;
                let credentials = serde_json::from_value(value).map_err(instant_acme::Error::from)?;
                save(settings, store, credentials)?;
            }
            Ok(account)
        }
        None => {
            let new =
                NewAccount { contact: &wanted, terms_of_service_agreed: true, only_return_existing: false };
            let (account, credentials) = builder().create(&new, settings.directory.clone(), None).await?;
            save(settings, store, credentials)?;
            tracing::info!(directory = settings.directory, "acme: new account");
            Ok(account)
        }
    }
}

fn save(
    settings: &Settings,
    store: &Store,
    credentials: instant_acme::AccountCredentials,
) -> Result<(), Failure> {
    let account = SavedAccount {
        credentials,
        directory: settings.directory.clone(),
        contact: settings.contact.clone(),
    };
    store.save_account(&account).map_err(Failure::State)
}

/// Orders a certificate and answers the challenges. `replaces` is the certificate before, if the authority wants to know it.
/// `turn` is the number of the attempt: each begins with another challenge.
///
/// # Errors
/// The authority refuses, or sends something else.
pub async fn issue(
    settings: &Settings,
    account: &Account,
    replaces: Option<&cert::Identifier>,
    turn: usize,
    pending: &Pending,
) -> Result<Issued, Failure> {
    let identifiers: Vec<Identifier> = settings.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut new = NewOrder::new(&identifiers);
    if let Some(profile) = &settings.profile {
        // An authority without profiles would ignore the word and issue another kind.
        let mut all: Vec<String> = account.profiles().map(|one| one.name.to_owned()).collect();
        if !all.contains(profile) {
            all.sort();
            return Err(Failure::NoProfile(profile.clone(), all));
        }
        new = new.profile(profile);
    }
    if let Some(cert::Identifier { authority, serial }) = replaces {
        new = new.replaces(CertificateIdentifier::new(authority.as_slice().into(), serial.as_slice().into()));
    }
    let mut order = account.new_order(&new).await?;
    answer(settings, &mut order, turn, pending).await?;
    if order.state().status != OrderStatus::Ready {
        let ready = order.poll_ready(&POLLS).await;
        if !matches!(ready, Ok(OrderStatus::Ready)) {
            // The reason is in the authorization.
            invalid(&mut order).await?;
            ready?;
            return Err(Failure::Wrong("an order that is invalid without a reason".to_owned()));
        }
    }
    pending.clear();
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| no_key(&error))?;
    let mut params = CertificateParams::new(settings.domains.clone()).map_err(|error| no_key(&error))?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&pair).map_err(|error| no_key(&error))?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&POLLS).await?;
    check(settings, &chain, &pair, clock::unix_seconds())
}

fn no_key(error: &rcgen::Error) -> Failure {
    Failure::Local(format!("no key or request could be made ({error}); report this as a bug"))
}

/// Makes the answers available and tells the authority so, for each name that it has not validated yet.
async fn answer(
    settings: &Settings,
    order: &mut Order,
    turn: usize,
    pending: &Pending,
) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        // After a failure another one may succeed: port 443 may be open and port 80 not.
        let mut kinds = settings.challenges.clone();
        let first = turn % kinds.len().max(1);
        kinds.rotate_left(first);
        let offered = kinds.into_iter().find(|kind| {
            authorization.challenges.iter().any(|challenge| challenge.r#type == kind.of_protocol())
        });
        let Some(kind) = offered else { return Err(Failure::NoChallenge(name)) };
        let Some(mut challenge) = authorization.challenge(kind.of_protocol()) else {
            return Err(Failure::NoChallenge(name));
        };
        let proof = challenge.key_authorization();
        match kind {
            Challenge::Http01 => pending.add_file(&challenge.token, proof.as_str()),
            Challenge::TlsAlpn01 => {
                let digest = proof.digest();
                let digest = digest.as_ref().first_chunk::<32>().ok_or(Failure::TimeOut)?;
                let config = challenge::challenge(&name, digest)
                    .map_err(|error| Failure::Local(format!("no challenge certificate: {error}")))?;
                pending.add_handshake(&name.to_ascii_lowercase(), config);
            }
        }
        tracing::debug!(name, ?kind, "acme: the answer is ready");
        challenge.set_ready().await?;
    }
    Ok(())
}

/// Returns why a name was not validated; `Ok` if the authority says nothing.
async fn invalid(order: &mut Order) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        authorization.refresh().await?;
        if authorization.status != AuthorizationStatus::Invalid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.clone());
        return Err(Failure::Name(name, problem));
    }
    Ok(())
}

/// Checks that the chain is what was ordered: for this key and these names, and valid now.
fn check(settings: &Settings, chain: &str, pair: &KeyPair, now: u64) -> Result<Issued, Failure> {
    let wrong = |what: &str| Failure::Wrong(what.to_owned());
    let parsed: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Wrong(format!("a damaged certificate ({error})")))?;
    let leaf = parsed.first().ok_or_else(|| wrong("no certificate"))?.clone();
    let described = cert::describe(&leaf).ok_or_else(|| wrong("a damaged certificate"))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    // It compares the public keys.
    CertifiedKey::from_der(parsed, key, &provider()).map_err(|_| wrong("a certificate for another key"))?;
    let names = cert::dns_names(&leaf);
    let has = |domain: &&String| !names.iter().any(|name| name.eq_ignore_ascii_case(domain));
    if let Some(missing) = settings.domains.iter().find(has) {
        return Err(Failure::Wrong(format!("a certificate that is not for {missing}")));
    }
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < described.not_before - CLOCK_BEHIND || now >= described.not_after {
        return Err(wrong("a certificate that is not valid now: check the clock of this host"));
    }
    let validity = [described.not_before, described.not_after].map(|time| u64::try_from(time).unwrap_or(0));
    Ok(Issued { chain: chain.to_owned(), key: pair.serialize_pem(), validity: validity.into() })
}

impl Challenge {
    fn of_protocol(self) -> ChallengeType {
        match self {
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Self::Http01 => ChallengeType::Http01,
        }
    }
}
