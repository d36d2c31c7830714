//! What waits for a token: fair between users, bounded, and never for somebody who is gone.

use std::collections::VecDeque;
use std::time::Instant;

use super::Job;

/// Jobs by user; each user has a turn, however many jobs it has.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Before all turns: what was lost with a token program and gets its second try, oldest first.
    again: VecDeque<Job>,
    /// In the order of their turns; none of them empty.
    users: VecDeque<(u32, VecDeque<Job>)>,
    /// Jobs of `users`.
    length: usize,
}

/// Enough for the callers of a large host at once; what waits beyond that on a token that signs ten a
/// second would not be signed in time anyway.
pub(super) const LIMIT: usize = 512;

impl Queue {
    /// Adds a job at the end of its user's. When that is one too many, the newest job of the user with the
    /// most comes back, to be refused: whoever asks much cannot keep others out.
    pub(super) fn push(&mut self, job: Job) -> Option<Job> {
        let uid = job.caller.uid;
        match self.users.iter_mut().find(|(user, _)| *user == uid) {
            Some((_, jobs)) => jobs.push_back(job),
            None => self.users.push_back((uid, VecDeque::from([job]))),
        }
        self.length += 1;
        if self.length <= LIMIT {
            return None;
        }
        // The last of several: with as many each, the newcomer waits no longer than those before it.
        let at = (0..self.users.len()).max_by_key(|at| self.jobs_of(*at))?;
        self.take(at, VecDeque::pop_back)
    }

    /// Adds a job that comes before all others.
    pub(super) fn push_again(&mut self, job: Job) {
        self.again.push_back(job);
    }

    /// The next job that somebody still waits for.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Job> {
        loop {
            let job = match self.again.pop_front() {
                Some(job) => job,
                None => {
                    let job = self.take(0, VecDeque::pop_front)?;
                    if self
                        .users
                        .front()
                        .is_some_and(|(user, _)| *user == job.caller.uid)
                    {
                        self.users.rotate_left(1); // the next turn is the next user's
                    }
                    job
                }
            };
            if job.deadline > now && !job.caller.is_gone() {
                return Some(job);
            }
        }
    }

    /// Everything that waits.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Job> {
        self.length = 0;
        let users = std::mem::take(&mut self.users);
        let again = std::mem::take(&mut self.again);
        again
            .into_iter()
            .chain(users.into_iter().flat_map(|(_, jobs)| jobs))
    }

    pub(super) fn len(&self) -> usize {
        self.length + self.again.len()
    }

    fn jobs_of(&self, at: usize) -> usize {
        self.users.get(at).map_or(0, |(_, jobs)| jobs.len())
    }

    fn take(
        &mut self,
        at: usize,
        end: impl FnOnce(&mut VecDeque<Job>) -> Option<Job>,
    ) -> Option<Job> {
        let (_, jobs) = self.users.get_mut(at)?;
        let job = end(jobs)?;
        if jobs.is_empty() {
            self.users.remove(at);
        }
        self.length -= 1;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_worker::Caller;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    fn job(uid: u32, key: usize) -> Job {
        Job {
            key,
            text: String::new(),
            caller: Caller::user(uid),
            deadline: Instant::now() + Duration::from_secs(60),
            again: false,
            answer: mpsc::sync_channel(1).0,
        }
    }

    /// User and number of each job, in their order.
    fn order(queue: &mut Queue) -> Vec<(u32, usize)> {
        std::iter::from_fn(|| queue.pop(Instant::now()))
            .map(|job| (job.caller.uid, job.key))
            .collect()
    }

    #[test]
    fn users_take_turns() {
        let mut queue = Queue::default();
        for key in 0..4 {
            assert!(queue.push(job(1, key)).is_none());
        }
        assert!(queue.push(job(2, 0)).is_none());
        assert!(queue.push(job(3, 0)).is_none());
        assert!(queue.push(job(2, 1)).is_none());
        assert_eq!(queue.len(), 7);
        let expected = [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3)];
        assert_eq!(order(&mut queue), expected);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_second_try_comes_first() {
        let mut queue = Queue::default();
        queue.push(job(1, 0));
        queue.push_again(job(2, 1));
        queue.push_again(job(1, 2));
        assert_eq!(order(&mut queue), [(2, 1), (1, 2), (1, 0)]);
    }

    #[test]
    fn the_newest_of_whoever_has_most_is_refused() {
        let mut queue = Queue::default();
        for key in 0..LIMIT - 1 {
            assert!(queue.push(job(1, key)).is_none());
        }
        assert!(queue.push(job(2, 0)).is_none());
        // Full: the one with the most loses its newest, whoever comes.
        for key in 1..100 {
            let refused = queue.push(job(2, key)).unwrap();
            assert_eq!((refused.caller.uid, refused.key), (1, LIMIT - 1 - key));
        }
        let refused = queue.push(job(1, 9999)).unwrap();
        assert_eq!((refused.caller.uid, refused.key), (1, 9999));
        assert_eq!(queue.len(), LIMIT);
        assert_eq!(queue.drain().count(), LIMIT);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn nobody_waits_for_the_late_and_the_gone() {
        let mut queue = Queue::default();
        let mut late = job(1, 0);
        late.deadline = Instant::now();
        queue.push(late);
        let (client, ours) = UnixStream::pair().unwrap();
        let mut leaving = job(1, 1);
        leaving.caller = Caller::client(1, wire::Transport::new(ours).presence());
        queue.push(leaving);
        queue.push(job(1, 2));
        drop(client);
        assert_eq!(order(&mut queue), [(1, 2)]);
    }
}
