//! The canonical JSON of one version, and room for very many of them.
//!
//! A pod's JSON is three kilobytes, nearly all of which other pods say too. A text that is not new any more can be packed: deflate, with the
//! text of another object of the same kind and namespace to point into. That leaves a tenth of it, and unpacking takes a microsecond or
//! two, so whoever reads a text need not know. What is written is never what was packed: an engine is given the JSON itself.
//!
//! You will not find here: when a text is old enough to be packed (the store knows which versions are), or bodies of answers.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use parking_lot::Mutex;

use super::{Key, Kind};

/// A text of which a part may be kept elsewhere.
pub(super) struct Text {
    /// Its length when it is not packed.
    size: u32,
    form: Mutex<Form>,
}

enum Form {
    Plain(Bytes),
    Packed { model: Arc<Bytes>, packed: Box<[u8]> },
}

impl Text {
    /// # Panics
    /// The text is longer than 4 GiB. The store takes no object of a size near that.
    pub(super) fn new(json: Bytes) -> Text {
        Text { size: u32::try_from(json.len()).expect("an object is not that large"), form: Mutex::new(Form::Plain(json)) }
    }

    /// The JSON. A packed one is unpacked for each call, and stays packed: who reads everything once does not make everything large.
    pub(super) fn json(&self) -> Bytes {
        match &*self.form.lock() {
            Form::Plain(json) => json.clone(),
            Form::Packed { model, packed } => inflate(model, packed, self.size()),
        }
    }

    /// How long the JSON is.
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// How much of it is in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match &*self.form.lock() {
            Form::Plain(json) => json.len(),
            Form::Packed { packed, .. } => packed.len(),
        }
    }
}

/// Packs texts. It remembers what it may point into.
#[derive(Default)]
pub struct Packer {
    /// Texts like which others may be, by kind and namespace; the one that helped last comes first.
    models: BTreeMap<(&'static Kind, Arc<str>), VecDeque<Arc<Bytes>>>,
    deflate: Deflate,
}

impl Packer {
    /// Shorter ones are not worth it.
    const LEAST: usize = 256;
    /// A text that does not become so many times smaller is unlike its model.
    const WORTH: usize = 3;
    /// How many different texts of one kind and namespace are tried. The workloads of a namespace look alike, and come one after the other.
    const MODELS: usize = 4;
    /// For how many kinds and namespaces models are remembered.
    const PLACES: usize = 1024;

    /// Packs the text of an object, unless it is packed, or becomes what others are packed by.
    pub(super) fn pack(&mut self, key: &Key, text: &Text) {
        // Leases are written again before it would have been worth while.
        if text.size() < Self::LEAST || key.kind.is("coordination.k8s.io", "Lease") {
            return;
        }
        // Who wants to read it meanwhile does not wait.
        let json = match &*text.form.lock() {
            Form::Plain(json) => json.clone(),
            Form::Packed { .. } => return,
        };
        let place = (key.kind, key.namespace.clone());
        if self.models.len() >= Self::PLACES && !self.models.contains_key(&place) {
            self.models.clear();
        }
        let models = self.models.entry(place).or_default();
        for nth in 0..models.len() {
            let model = &models[nth];
            if model.as_ptr() == json.as_ptr() {
                return;
            }
            if let Some(packed) = self.deflate.pack(model, &json) {
                *text.form.lock() = Form::Packed { model: model.clone(), packed };
                models.swap(0, nth);
                return;
            }
        }
        models.truncate(Self::MODELS - 1);
        models.push_front(Arc::new(json));
    }
}

/// What packing needs: some 300 KB, which are used again and again.
struct Deflate {
    state: Compress,
    room: Vec<u8>,
}

impl Default for Deflate {
    fn default() -> Self {
        // The fastest level leaves 330 bytes of a pod, in half of the time in which others leave 200.
        Deflate { state: Compress::new(Compression::fast(), false), room: Vec::new() }
    }
}

impl Deflate {
    /// Nothing if it does not become much smaller.
    fn pack(&mut self, model: &[u8], json: &[u8]) -> Option<Box<[u8]>> {
        self.state.reset();
        self.state.set_dictionary(model).ok()?;
        self.room.clear();
        self.room.reserve(json.len() / Packer::WORTH);
        match self.state.compress_vec(json, &mut self.room, FlushCompress::Finish) {
            // Else there was no room.
            Ok(Status::StreamEnd) => Some(self.room.as_slice().into()),
            _ => None,
        }
    }
}

/// # Panics
/// This is not what was packed with this model: memory is broken.
fn inflate(model: &[u8], packed: &[u8], size: usize) -> Bytes {
    thread_local! {
        static STATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
    }
    STATE.with_borrow_mut(|state| {
        state.reset(false);
        let mut json = Vec::with_capacity(size);
        let done = state.set_dictionary(model).and_then(|_| state.decompress_vec(packed, &mut json, FlushDecompress::Finish));
        assert!(matches!(done, Ok(Status::StreamEnd)) && json.len() == size, "a text was packed by us");
        json.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::kind_of;

    fn pod(nth: usize) -> (Key, Text) {
        let fields = (0..40).map(|field| format!("\"field-{field}\":{{\"f:name\":{{}}}}")).collect::<Vec<_>>().join(",");
        let json = format!("{{\"metadata\":{{\"name\":\"web-{nth}\",{fields}}}}}");
        (Key::of::<k8s_openapi::api::core::v1::Pod>("shop", &format!("web-{nth}")), Text::new(json.into()))
    }

    #[test]
    fn texts_that_say_the_same_take_little_room_and_are_read_as_they_were() {
        let pods: Vec<(Key, Text)> = (0..100).map(pod).collect();
        let before: Vec<Bytes> = pods.iter().map(|(_, text)| text.json()).collect();
        let mut packer = Packer::default();
        // Again does no harm.
        for _ in 0..2 {
            pods.iter().for_each(|(key, text)| packer.pack(key, text));
        }
        assert_eq!(pods[0].1.held(), before[0].len(), "the first is the model of the others");
        for ((_, text), json) in pods.iter().zip(&before).skip(1) {
            assert!(text.held() < json.len() / 10, "{} of {}", text.held(), json.len());
            assert_eq!((&text.json(), text.size()), (json, json.len()));
            assert!(text.held() < json.len() / 10, "reading leaves it packed");
        }
    }

    #[test]
    fn a_text_like_no_other_stays_as_it_is() {
        let key = |nth: usize| Key::of::<k8s_openapi::api::core::v1::ConfigMap>("shop", &format!("c-{nth}"));
        let mut noise = 1u64;
        let mut letters = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            char::from(b'!' + u8::try_from(noise % 90).unwrap())
        };
        let texts: Vec<(Key, Text)> =
            (0..20).map(|nth| (key(nth), Text::new((0..2000).map(|_| letters()).collect::<String>().into()))).collect();
        let before: Vec<Bytes> = texts.iter().map(|(_, text)| text.json()).collect();
        let mut packer = Packer::default();
        texts.iter().for_each(|(key, text)| packer.pack(key, text));
        assert!(texts.iter().zip(&before).all(|((_, text), json)| text.held() == json.len() && text.json() == *json));
        let remembered: usize = packer.models.values().map(VecDeque::len).sum();
        assert_eq!(remembered, Packer::MODELS, "what did not help is forgotten");
    }

    #[test]
    fn a_lease_and_a_short_text_are_left_alone() {
        let lease = Key::new(kind_of::<k8s_openapi::api::coordination::v1::Lease>(), "kube-node-lease", "h1");
        let short = Key::new(kind_of::<k8s_openapi::api::core::v1::Pod>(), "shop", "p");
        let mut packer = Packer::default();
        for (key, size) in [(lease, 1000), (short, 100)] {
            let texts: Vec<Text> = (0..3).map(|_| Text::new(" ".repeat(size).into())).collect();
            texts.iter().for_each(|text| packer.pack(&key, text));
            assert!(texts.iter().all(|text| text.held() == size));
        }
    }
}
