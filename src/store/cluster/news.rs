//! What happened to Functions, as the cluster's own events: published so that equal ones count on, and read back.

use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client, Resource,
    api::ListParams,
    runtime::events::{self, Recorder, Reporter},
};

use crate::{
    function::{Function, FunctionKey},
    store::{EventRecord, EventType},
};

/// Who reports.
const REPORTER: &str = "faas.dev/controller";
/// Longest text of an event that the server takes.
const MAX_NOTE: usize = 1000;

/// Publishes and reads events.
pub struct News {
    client: Client,
    recorder: Recorder,
}

impl News {
    /// By way of this client.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
        }
    }

    /// Publishes an event of a Function.
    pub async fn publish(
        &self,
        function: &Function,
        event: EventRecord,
    ) -> Result<(), kube::Error> {
        let news = events::Event {
            type_: match event.kind {
                EventType::Normal => events::EventType::Normal,
                EventType::Warning => events::EventType::Warning,
            },
            reason: event.reason.clone(),
            note: Some(event.message.chars().take(MAX_NOTE).collect()),
            action: event.reason,
            secondary: None,
        };
        self.recorder
            .publish(&news, &function.object_ref(&()))
            .await
    }

    /// The events of a Function, the oldest first; also those of others who report.
    pub async fn read(
        &self,
        key: &FunctionKey,
        uid: &str,
    ) -> Result<Vec<EventRecord>, kube::Error> {
        let api = Api::<Event>::namespaced(self.client.clone(), key.namespace());
        let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let events = api.list(&params).await?.items.into_iter();
        let mut events: Vec<_> = events.filter_map(record).collect();
        events.sort_by_key(|event| event.time);
        Ok(events)
    }
}

fn record(event: Event) -> Option<EventRecord> {
    let series = event.series.as_ref();
    let time = series
        .and_then(|series| Some(series.last_observed_time.as_ref()?.0))
        .or_else(|| Some(event.event_time.as_ref()?.0))
        .or_else(|| Some(event.last_timestamp.as_ref()?.0))?;
    let count = series.and_then(|series| series.count).or(event.count);
    Some(EventRecord {
        time,
        kind: event.type_.as_deref()?.parse().ok()?,
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
        count: count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1),
    })
}
