//! One connection over an in-memory stream, on paused time.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, OnceLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::*;
use crate::kafka::encode::Rope;
use crate::kafka::request::{ConnectionContext, Outcome, Reply, ReplyTo, Request, RequestBody, parse};
use crate::kafka::samples;
use crate::kafka::versions::Api;

/// What the dummy service does with the n-th request.
enum Plan {
    Now,
    NowBytes(usize),
    Silent,
    Close,
    /// Second phase ends when the sender is used.
    Later(oneshot::Receiver<()>),
    LaterClose,
    /// First phase ends when the sender is used.
    Blocked(oneshot::Receiver<()>),
    /// Answered or not, and then muted.
    Throttled {
        answered: bool,
        mute: Duration,
    },
}

#[derive(Default)]
struct Dummy {
    plans: Mutex<VecDeque<Plan>>,
    begun: Mutex<Vec<i32>>,
    dropped: Arc<AtomicUsize>,
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn empty_answer(to: ReplyTo, bytes: usize) -> Outcome {
    let mut out = BytesMut::new();
    out.put_i32(4 + bytes as i32);
    out.put_i32(to.correlation_id);
    out.put_bytes(7, bytes);
    Outcome::Send(Rope::from(out.freeze()))
}

impl Service for Dummy {
    fn begin(&self, request: Request) -> BoxFuture<'_, Reply> {
        let to = request.to;
        self.begun.lock().unwrap().push(to.correlation_id);
        let plan = self.plans.lock().unwrap().pop_front().unwrap_or(Plan::Now);
        let guard = CountDrop(Arc::clone(&self.dropped));
        Box::pin(async move {
            match plan {
                Plan::Now => Reply::Now(empty_answer(to, 0)),
                Plan::NowBytes(bytes) => Reply::Now(empty_answer(to, bytes)),
                Plan::Silent => Reply::silent(),
                Plan::Close => Reply::close("told to"),
                Plan::Later(signal) => Reply::later(async move {
                    let _ = signal.await;
                    drop(guard);
                    empty_answer(to, 0)
                }),
                Plan::Throttled { answered, mute } => {
                    let answer = match empty_answer(to, 0) {
                        Outcome::Send(rope) if answered => Some(rope),
                        _ => None,
                    };
                    Reply::Now(Outcome::Throttled { answer, mute })
                }
                Plan::LaterClose => Reply::later(async { Outcome::Close("told to".into()) }),
                Plan::Blocked(signal) => {
                    let _ = signal.await;
                    Reply::Now(empty_answer(to, 0))
                }
            }
        })
    }
}

struct Bench {
    service: Arc<Dummy>,
    wire: Arc<Wire>,
    far: DuplexStream,
    stop: watch::Sender<bool>,
    task: JoinHandle<Closed>,
}

fn bench(plans: Vec<Plan>) -> Bench {
    bench_with(plans, ConnectionOptions::default(), None, 1 << 20)
}

fn bench_with(plans: Vec<Plan>, options: ConnectionOptions, expires: Option<Instant>, pipe: usize) -> Bench {
    let service = Arc::new(Dummy { plans: Mutex::new(plans.into()), ..Default::default() });
    let wire = Wire::new(service.clone(), options, Arc::new(WireMetrics::new()));
    let (near, far) = duplex(pipe);
    let (stop, stopped) = watch::channel(false);
    let peer =
        Peer { listener: "test".into(), addr: ([127, 0, 0, 1], 9).into(), principal: Principal::anonymous(), expires };
    let task = tokio::spawn(serve(wire.clone(), near, peer, stopped));
    Bench { service, wire, far, stop, task }
}

/// A small request.
fn request(correlation_id: i32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(ApiKey::ListOffsets as i16);
    out.put_i16(1);
    out.put_i32(correlation_id);
    out.put_i16(-1);
    out.put_i32(-1);
    out.put_i32(0);
    samples::with_length(&out)
}

fn requests(ids: std::ops::Range<i32>) -> Vec<u8> {
    ids.flat_map(|id| request(id).to_vec()).collect()
}

impl Bench {
    async fn send(&mut self, bytes: &[u8]) {
        self.far.write_all(bytes).await.unwrap();
    }

    /// The correlation id of the next answer.
    async fn answer(&mut self) -> i32 {
        let length = self.far.read_i32().await.unwrap();
        let id = self.far.read_i32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        self.far.read_exact(&mut body).await.unwrap();
        id
    }

    /// The next answer, which is the second request's and comes after `wait`.
    async fn answer_after(&mut self, began: Instant, wait: Duration) {
        assert_eq!(self.answer().await, 1);
        assert!(began.elapsed() >= wait);
    }

    async fn answers(&mut self, ids: std::ops::Range<i32>) {
        for id in ids {
            assert_eq!(self.answer().await, id);
        }
    }

    async fn is_silent(&mut self) -> bool {
        timeout(Duration::from_millis(50), self.far.read_u8()).await.is_err()
    }

    /// The connection has ended, without another byte, and everything it counted is gone.
    async fn closed(mut self) -> Closed {
        let mut rest = Vec::new();
        self.far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        let closed = self.task.await.unwrap();
        assert_eq!(self.wire.metrics.connections.load(Relaxed), 0);
        closed
    }
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_request_order_whatever_finishes_first() {
    let (slow, first) = oneshot::channel();
    let (fast, second) = oneshot::channel();
    let plans = vec![Plan::Later(first), Plan::Now, Plan::Later(second), Plan::Silent, Plan::Now];
    let mut bench = bench(plans);
    bench.send(&requests(0..5)).await;
    fast.send(()).unwrap();
    assert!(bench.is_silent().await);
    assert_eq!(*bench.service.begun.lock().unwrap(), [0, 1, 2, 3, 4]);
    slow.send(()).unwrap();
    for id in [0, 1, 2, 4] {
        assert_eq!(bench.answer().await, id);
    }
    let (bytes_out, api) = (bench.wire.metrics.bytes_out.load(Relaxed), Api::find(ApiKey::ListOffsets as i16).unwrap());
    assert_eq!((bytes_out, bench.wire.metrics.api(api).requests.load(Relaxed)), (32, 5));
    assert_eq!(bench.wire.metrics.api(api).latency.buckets().iter().sum::<u64>(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_first_phase_that_waits_holds_back_later_requests_but_not_earlier_answers() {
    let (release, blocked) = oneshot::channel();
    let (finish, later) = oneshot::channel();
    let mut bench = bench(vec![Plan::Later(later), Plan::Blocked(blocked), Plan::Now]);
    bench.send(&requests(0..3)).await;
    assert!(bench.is_silent().await);
    assert_eq!(*bench.service.begun.lock().unwrap(), [0, 1]);
    finish.send(()).unwrap();
    assert_eq!(bench.answer().await, 0);
    release.send(()).unwrap();
    bench.answers(1..3).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_after_the_answers_before_it() {
    for close in [Plan::Close, Plan::LaterClose] {
        let (finish, later) = oneshot::channel();
        let (_kept, never) = oneshot::channel();
        let mut bench = bench(vec![Plan::Later(later), close, Plan::Later(never), Plan::Now]);
        bench.send(&requests(0..4)).await;
        assert!(bench.is_silent().await);
        finish.send(()).unwrap();
        assert_eq!(bench.answer().await, 0);
        assert!(matches!(bench.closed().await, Closed::ByService(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn impossible_frames_close_after_what_was_asked_before() {
    for length in [0, -1, i32::MAX, i32::MIN, 1001] {
        let options = ConnectionOptions { request_bytes_max: 1000, ..Default::default() };
        let mut bench = bench_with(vec![], options, None, 1 << 20);
        bench.send(&[&request(1)[..], &length.to_be_bytes()].concat()).await;
        assert_eq!(bench.answer().await, 1);
        let metrics = bench.wire.metrics.clone();
        assert!(matches!(bench.closed().await, Closed::Frame(e) if e.length == length));
        assert_eq!(metrics.malformed.load(Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_trickles_in_is_cut_off() {
    let mut bench = bench(vec![]);
    let began = Instant::now();
    bench.send(&1000_i32.to_be_bytes()).await;
    // Never long without a byte, and never a whole frame.
    while bench.far.write_all(&[0]).await.is_ok() {
        sleep(Duration::from_secs(7)).await;
    }
    assert!(matches!(bench.task.await.unwrap(), Closed::SlowFrame(_)));
    assert!((60..70).contains(&began.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn slow_frames_are_each_given_their_time() {
    let mut bench = bench(vec![]);
    for id in 0..5 {
        for half in request(id).chunks(12) {
            bench.send(half).await;
            sleep(Duration::from_secs(25)).await;
        }
        assert_eq!(bench.answer().await, id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_is_not_slow_while_we_do_not_read_it() {
    let (finish, later) = oneshot::channel();
    let options = ConnectionOptions { requests_max: 1, ..Default::default() };
    let mut bench = bench_with(vec![Plan::Later(later)], options, None, 1 << 20);
    // The third frame has begun behind one that must wait.
    bench.send(&[&requests(0..2)[..], &request(2)[..10]].concat()).await;
    sleep(Duration::from_secs(100)).await;
    finish.send(()).unwrap();
    bench.answers(0..2).await;
    bench.send(&request(2)[10..]).await;
    assert_eq!(bench.answer().await, 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_but_not_one_that_waits_for_us() {
    let (finish, later) = oneshot::channel();
    let mut bench = bench(vec![Plan::Later(later)]);
    bench.send(&request(0)).await;
    sleep(Duration::from_secs(3600)).await;
    finish.send(()).unwrap();
    assert_eq!(bench.answer().await, 0);
    let began = Instant::now();
    assert!(matches!(bench.closed().await, Closed::Idle(_)));
    assert!((599..602).contains(&began.elapsed().as_secs()));
}

/// KIP-219: the answer comes at once; what comes after it waits.
#[tokio::test(start_paused = true)]
async fn a_muted_connection_begins_nothing_until_its_time_is_over() {
    let mute = Duration::from_secs(7);
    for answered in [true, false] {
        let mut bench = bench(vec![Plan::Throttled { answered, mute }]);
        let began = Instant::now();
        bench.send(&requests(0..3)).await;
        if answered {
            bench.answers(0..1).await;
        } else {
            bench.answer_after(began, mute).await;
        }
        assert_eq!(began.elapsed() >= mute, !answered, "the answer itself is not delayed");
        bench.send(&request(3)).await;
        bench.answers(if answered { 1..4 } else { 2..4 }).await;
        assert!(began.elapsed() >= mute && began.elapsed() < mute + Duration::from_millis(50));
        bench.send(&request(4)).await;
        bench.answers(4..5).await;
        assert!(began.elapsed() < mute + Duration::from_millis(100), "it is muted once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_muted_connection_is_neither_idle_nor_slow() {
    let options = ConnectionOptions::default();
    let mute = options.idle_timeout * 2;
    let mut bench = bench(vec![Plan::Throttled { answered: true, mute }]);
    bench.send(&request(0)).await;
    // The next one has begun to arrive.
    bench.send(&request(1)[..5]).await;
    bench.answers(0..1).await;
    sleep(mute + options.frame_timeout / 2).await;
    bench.send(&request(1)[5..]).await;
    bench.answers(1..2).await;
}

#[tokio::test(start_paused = true)]
async fn a_muted_connection_stops_with_the_broker_and_ends_with_its_peer() {
    let mute = Duration::from_secs(500);
    let mut bench = bench(vec![Plan::Throttled { answered: true, mute }]);
    bench.send(&request(0)).await;
    bench.answers(0..1).await;
    bench.stop.send(true).unwrap();
    let began = Instant::now();
    assert!(matches!(bench.closed().await, Closed::Stopping));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_bounded_and_closed_in_the_end() {
    let options = ConnectionOptions { bytes_max: 10_000, requests_max: 20, ..Default::default() };
    let plans = (0..1000).map(|_| Plan::NowBytes(1000)).collect();
    let mut bench = bench_with(plans, options, None, 4096);
    let (mut far_read, mut far_write) = tokio::io::split(bench.far);
    let sending = tokio::spawn(async move { far_write.write_all(&requests(0..1000)).await });
    sleep(Duration::from_secs(60)).await;
    let begun = bench.service.begun.lock().unwrap().len();
    assert!((20..40).contains(&begun), "{begun}");
    assert!(!sending.is_finished());
    sleep(Duration::from_secs(700)).await;
    assert!(matches!((&mut bench.task).await.unwrap(), Closed::Idle(_)));
    assert!(sending.await.unwrap().is_err());
    assert_eq!(far_read.read(&mut [0; 1]).await.unwrap(), 1);
}

/// Small requests with answers that nobody expects of them, behind one that is not answered yet or none.
#[tokio::test(start_paused = true)]
async fn answers_that_are_not_read_hold_back_the_next_request_and_come_in_order() {
    for behind_a_slow_one in [false, true] {
        let options = ConnectionOptions { answer_bytes_max: 10_000, ..Default::default() };
        let (finish, later) = oneshot::channel();
        let first = behind_a_slow_one.then_some(Plan::Later(later));
        let plans = first.into_iter().chain((0..).map(|_| Plan::NowBytes(3000))).take(50).collect();
        let mut bench = bench_with(plans, options, None, 4096);
        let (mut far_read, mut far_write) = tokio::io::split(std::mem::replace(&mut bench.far, duplex(1).0));
        let sending = tokio::spawn(async move { far_write.write_all(&requests(0..50)).await.map(|()| far_write) });
        sleep(Duration::from_secs(60)).await;
        // Four answers are more than may wait, and the pipe has taken another.
        let begun = bench.service.begun.lock().unwrap().len();
        assert!((4..=6).contains(&begun), "{begun}, behind a slow one: {behind_a_slow_one}");
        finish.send(()).ok();
        for id in 0..50 {
            let length = far_read.read_i32().await.unwrap();
            assert_eq!(far_read.read_i32().await.unwrap(), id);
            far_read.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
        }
        sending.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_byte_budget_wait_and_a_huge_one_is_admitted_alone() {
    let (finish, later) = oneshot::channel();
    let options = ConnectionOptions { bytes_max: 50, ..Default::default() };
    let mut bench = bench_with(vec![Plan::Later(later)], options, None, 1 << 20);
    bench.send(&requests(0..4)).await;
    assert!(bench.is_silent().await);
    assert_eq!(bench.service.begun.lock().unwrap().len(), 2);
    finish.send(()).unwrap();
    bench.answers(0..4).await;

    let mut huge = BytesMut::from(&request(9)[4..]);
    huge.put_bytes(0, 1000);
    bench.send(&samples::with_length(&huge)).await;
    assert_eq!(bench.answer().await, 9);
}

#[tokio::test(start_paused = true)]
async fn stopping_finishes_what_was_begun_and_reads_no_more() {
    let (finish, later) = oneshot::channel();
    let mut bench = bench(vec![Plan::Later(later)]);
    bench.send(&request(0)).await;
    assert!(bench.is_silent().await);
    bench.stop.send(true).unwrap();
    assert!(bench.is_silent().await);
    finish.send(()).unwrap();
    assert_eq!(bench.answer().await, 0);
    assert!(matches!(bench.closed().await, Closed::Stopping));
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_ever() {
    let (_kept, never) = oneshot::channel();
    let mut bench = bench(vec![Plan::Later(never)]);
    bench.send(&request(0)).await;
    assert!(bench.is_silent().await);
    bench.stop.send(true).unwrap();
    let (began, dropped) = (Instant::now(), bench.service.dropped.clone());
    assert!(matches!(bench.closed().await, Closed::Stopping));
    assert!(began.elapsed() < Duration::from_secs(12));
    assert_eq!(dropped.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_the_certificate() {
    let bench = bench_with(vec![], ConnectionOptions::default(), Some(Instant::now() + Duration::from_secs(5)), 4096);
    let began = Instant::now();
    assert!(matches!(bench.closed().await, Closed::Expired));
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_sent_before_it_closed_is_begun() {
    let (release, blocked) = oneshot::channel();
    let mut bench = bench(vec![Plan::Blocked(blocked), Plan::Silent, Plan::Silent]);
    bench.send(&requests(0..3)).await;
    bench.far.shutdown().await.unwrap();
    assert!(bench.is_silent().await);
    release.send(()).unwrap();
    assert_eq!(bench.answer().await, 0);
    assert_eq!(*bench.service.begun.lock().unwrap(), [0, 1, 2]);
    assert!(matches!(bench.closed().await, Closed::ByPeer));
}

#[tokio::test(start_paused = true)]
async fn many_answers_leave_in_few_writes_and_the_buffer_is_given_back() {
    let mut bench = bench((0..500).map(|i| Plan::NowBytes(i * 7)).collect());
    bench.send(&requests(0..500)).await;
    bench.answers(0..500).await;
    advance(Duration::from_secs(2)).await;
    bench.send(&request(500)).await;
    assert_eq!(bench.answer().await, 500);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    for version in [-1, 5, 99, i16::MAX] {
        let mut out = BytesMut::new();
        out.put_i16(ApiKey::ApiVersions as i16);
        out.put_i16(version);
        out.put_i32(42);
        out.put_slice(b"whatever a future header has");
        let mut bench = bench(vec![]);
        bench.send(&samples::with_length(&out)).await;
        let length = bench.far.read_i32().await.unwrap();
        let mut body = vec![0; length as usize];
        bench.far.read_exact(&mut body).await.unwrap();
        let mut body = Bytes::from(body);
        assert_eq!(ResponseHeader::decode(&mut body, 0).unwrap().correlation_id, 42);
        let answer = ApiVersionsResponse::decode(&mut body, 0).unwrap();
        assert!(!body.has_remaining());
        assert_eq!((answer.error_code, answer.api_keys.len()), (35, 1));
        let own = &answer.api_keys[0];
        assert_eq!((own.api_key, own.min_version, own.max_version), (18, 0, 4));
        bench.send(&request(1)).await;
        assert_eq!(bench.answer().await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_apis_and_versions_close() {
    for (key, version) in
        [(0, 2), (0, 14), (1, 3), (1, 19), (3, 14), (8, 10), (9, 10), (52, 0), (22, 6), (27, 2), (-1, 0), (999, 0)]
    {
        let mut out = BytesMut::new();
        out.put_i16(key);
        out.put_i16(version);
        out.put_bytes(0, 40);
        let mut bench = bench(vec![]);
        bench.send(&samples::with_length(&out)).await;
        assert!(matches!(bench.closed().await, Closed::Request(_)), "{key} {version}");
    }
}

#[test]
fn software_is_noted_once_and_only_if_well_formed() {
    let context = Arc::new(ConnectionContext {
        connection_id: 1,
        listener: "test".into(),
        peer_addr: ([127, 0, 0, 1], 9).into(),
        principal: Principal::anonymous(),
        software: OnceLock::new(),
    });
    let api = Api::find(ApiKey::ApiVersions as i16).unwrap();
    for name in ["bad name", &"long".repeat(64), "librdkafka", "other"] {
        let body = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_string(name.to_owned()))
            .with_client_software_version("2.15.0".into());
        let parsed = parse(samples::frame(api, 3, &body), &context).unwrap();
        assert!(matches!(parsed.request.body, RequestBody::ApiVersions(_)));
    }
    let (name, version) = context.software.get().unwrap();
    assert_eq!((&**name, &**version), ("librdkafka", "2.15.0"));
}
