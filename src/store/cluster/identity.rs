//! What all controllers of a cluster's namespaces must agree about, kept in a Secret there: else each would take what another
//! has made for somebody else's, and make it anew.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};

use crate::store::state::Identity;

/// Its name, in the namespace that we are in.
const NAME: &str = "faas-identity";
const OWNER: &str = "owner";
const SECRET: &str = "secret";

/// The identity that is there; ours becomes it when there is none.
///
/// # Errors
/// When the server does not tell, or what it tells is no identity.
pub async fn agree(
    client: &Client,
    namespace: &str,
    ours: &Identity,
) -> Result<Identity, kube::Error> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let there = match secrets.get_opt(NAME).await? {
        Some(there) => there,
        None => {
            secrets
                .create(&PostParams::default(), &secret(ours))
                .await?
        }
    };
    read(&there).ok_or_else(|| {
        let name = there.name_any();
        kube::Error::Service(format!("Secret {namespace}/{name} holds no identity").into())
    })
}

fn secret(identity: &Identity) -> Secret {
    let data = [
        (OWNER, identity.owner.clone().into_bytes()),
        (SECRET, identity.secret.to_vec()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(
            data.map(|(key, value)| (key.to_owned(), ByteString(value)))
                .into(),
        ),
        immutable: Some(true),
        ..Secret::default()
    }
}

fn read(secret: &Secret) -> Option<Identity> {
    let data: &BTreeMap<String, ByteString> = secret.data.as_ref()?;
    let owner = String::from_utf8(data.get(OWNER)?.0.clone()).ok()?;
    let secret = data.get(SECRET)?.0.as_slice().try_into().ok()?;
    Identity::new(owner, secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_written_and_nothing_else_is_one() {
        let identity = Identity::new("0123456789abcdef".to_owned(), [7; 32]).unwrap();
        let mut secret = secret(&identity);
        assert_eq!(read(&secret), Some(identity));
        let data = secret.data.as_mut().unwrap();
        data.insert(OWNER.to_owned(), ByteString(b"../../etc".to_vec()));
        assert_eq!(read(&secret), None);
    }
}
