//! The peers that are there, as the host sees them: in the order of their names, in pieces, so that a view which differs from
//! the one before by one peer shares all else with it.
//!
//! A sorted `Vec` in an `Arc` does not do: the host may hold the view before, so each change copies all ten thousand peers, on
//! the way of an event. A map with shared nodes is a dependency, and takes more memory for each peer.

use std::iter;
use std::sync::Arc;

use crate::peer::Peer;

/// The most peers of a piece, which is what a change copies, besides a reference to each piece.
const PIECE: usize = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// None is empty. Those that many have left are filled by others, or go with their last.
    pieces: Vec<Arc<[Peer]>>,
    len: usize,
}

impl Directory {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Peer> {
        let (piece, at) = self.place(name).ok()?;
        Some(&self.pieces[piece][at])
    }

    pub(crate) fn to_vec(&self) -> Vec<Peer> {
        let mut peers = Vec::with_capacity(self.len);
        for piece in &self.pieces {
            peers.extend_from_slice(piece);
        }
        peers
    }

    pub(crate) fn put(&mut self, peer: &Peer) {
        let (at_piece, at) = match self.place(peer.name()) {
            Ok((piece, at)) => {
                Arc::make_mut(&mut self.pieces[piece])[at] = peer.clone();
                return;
            }
            Err(place) => place,
        };
        self.len += 1;
        let Some(piece) = self.pieces.get_mut(at_piece) else {
            self.pieces.push(Arc::new([peer.clone()]));
            return;
        };
        let (before, after) = piece.split_at(at);
        let peers = before.iter().chain(iter::once(peer)).chain(after).cloned();
        if piece.len() < PIECE {
            *piece = peers.collect();
        } else {
            let half = PIECE / 2;
            let halves = [
                peers.clone().take(half).collect(),
                peers.skip(half).collect(),
            ];
            self.pieces.splice(at_piece..=at_piece, halves);
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let Ok((at_piece, at)) = self.place(name) else {
            return;
        };
        self.len -= 1;
        let piece = &mut self.pieces[at_piece];
        if piece.len() == 1 {
            self.pieces.remove(at_piece);
        } else {
            *piece = piece[..at]
                .iter()
                .chain(&piece[at + 1..])
                .cloned()
                .collect();
        }
    }

    /// Where it is, or belongs: the piece, and the place there.
    fn place(&self, name: &str) -> Result<(usize, usize), (usize, usize)> {
        let later = self.pieces.partition_point(|piece| piece[0].name() <= name);
        let piece = later.saturating_sub(1);
        let Some(peers) = self.pieces.get(piece) else {
            return Err((0, 0));
        };
        match peers.binary_search_by(|known| known.name().cmp(name)) {
            Ok(at) => Ok((piece, at)),
            Err(at) => Err((piece, at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::peer::{Incarnation, Tags};

    fn peer(name: u16, incarnation: u64) -> Peer {
        let incarnation = Some(Incarnation::new(incarnation));
        Peer::new(format!("p{name}").into(), incarnation, Tags::default())
    }

    proptest! {
        #[test]
        fn it_is_a_map_by_name_whatever_comes_and_goes(
            acts in prop::collection::vec((0..400u16, 0..4u64), 1..1_500)
        ) {
            let mut directory = Directory::default();
            let mut truth = BTreeMap::new();
            let mut before = None;
            for (name, incarnation) in acts {
                if incarnation == 0 {
                    directory.remove(&format!("p{name}"));
                    truth.remove(&format!("p{name}"));
                } else {
                    let peer = peer(name, incarnation);
                    directory.put(&peer);
                    truth.insert(peer.name().to_owned(), peer);
                }
                prop_assert_eq!(directory.len(), truth.len());
                let at = format!("p{name}");
                prop_assert_eq!(directory.get(&at), truth.get(&at));
                prop_assert!(directory.pieces.iter().all(|it| (1..=PIECE).contains(&it.len())));
                // What is shared with a view does not change under it.
                if name == 0 {
                    before = Some((directory.clone(), directory.to_vec()));
                }
            }
            prop_assert_eq!(directory.to_vec(), truth.into_values().collect::<Vec<_>>());
            if let Some((view, peers)) = before {
                prop_assert_eq!(view.to_vec(), peers);
            }
        }
    }

    #[test]
    fn a_change_leaves_all_pieces_but_one_as_they_were() {
        let mut directory = Directory::default();
        (0..1_000).for_each(|name| directory.put(&peer(name, 1)));
        let before = directory.clone();
        assert!(before.pieces.len() <= 2 * 1_000 / PIECE + 1);
        directory.put(&peer(500, 2));
        let same = before.pieces.iter().zip(&directory.pieces);
        assert_eq!(same.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
    }
}
