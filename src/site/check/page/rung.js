// One way to the relay: a call from this page to itself, through the relay and nothing else.

/** A way that has not reached the relay after this time is blocked. */
const BLOCKED_MS = 8000;
/** An address that needs no translation is known sooner than this, or not at all. */
const SILENT_MS = 4000;
const PINGS = 100;
const PING_EVERY_MS = 15;
const PING_BYTES = 160;
/** How long the last packets may take. */
const PING_REST_MS = 900;
const BURST_MS = 600;
const BURST_BYTES_MAX = 3e6;
const PIECE = 8192;
const BUFFERED_MAX = 128 * 1024;
const MEDIA_MS = 3000;
const MEDIA_FRAMES = 3;

/** The stages of a way, in order. */
export const STAGES = ["allocation", "connection", "round_trip", "throughput", "media"];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** Lets one way after the other measure its throughput: together they would measure each other. */
export class Turns {
  last = Promise.resolve();

  take(work) {
    const mine = this.last.then(work);
    this.last = mine.catch(() => {});
    return mine;
  }
}

export class Rung {
  /** `changed` is called whenever there is something new to show. */
  constructor(way, changed) {
    Object.assign(this, way);
    this.changed = () => changed(this);
    this.stage = "none";
    this.running = true;
    this.trips = [];
    this.rtt = this.loss = this.jitter = this.kbit = null;
    this.refusal = null;
    this.connections = [];
  }

  get works() {
    return ["round_trip", "throughput", "media"].includes(this.stage);
  }

  /** Whether the relay accepted a login on the same port as `other`. */
  accepts(other) {
    return this.kind === "media" && this.transport === other.transport && this.port === other.port && STAGES.includes(this.stage);
  }

  reach(stage) {
    this.stage = stage;
    this.changed();
  }

  /** Tests the way until it is finished or `over` resolves. Never throws. */
  async test(login, media, turns, over) {
    const work = this.kind === "address" ? this.ask() : this.call(login, media, turns);
    await Promise.race([work.catch((error) => { this.problem = `${error}`; }), over]);
    this.stop();
  }

  stop() {
    if (!this.running) return;
    this.running = false;
    if (this.stage === "none" && this.refusal) this.stage = "refused";
    this.connections.forEach((connection) => connection.close());
    this.changed();
  }

  /** Opens a connection and notes what the relay refuses. */
  open(configuration) {
    const connection = new RTCPeerConnection(configuration);
    this.connections.push(connection);
    connection.addEventListener("icecandidateerror", ({ errorCode, errorText }) => {
      if (errorCode >= 300 && errorCode < 700) this.refusal = { code: errorCode, text: errorText };
      // 701: no answer, which is not a refusal. An address of the other family cannot even be tried.
      else if (!/incompatible/i.test(errorText)) this.unanswered = true;
    });
    return connection;
  }

  /** Asks for the address that the other side sees, without a login. */
  async ask() {
    const connection = this.open({ iceServers: [{ urls: this.url }] });
    const answered = new Promise((resolve) => {
      connection.onicecandidate = ({ candidate }) => candidate?.type === "srflx" && resolve(true);
      // Without a translation of addresses there is nothing to tell: the gathering ends without a candidate and an error, as
      // soon as the answer is there. Without an answer it takes longer.
      const start = performance.now();
      connection.onicegatheringstatechange = () => {
        const isComplete = connection.iceGatheringState === "complete";
        if (isComplete) resolve(!this.unanswered && performance.now() - start < SILENT_MS);
      };
    });
    connection.createDataChannel("address");
    await connection.setLocalDescription();
    if (await Promise.race([answered, pause(BLOCKED_MS).then(() => false)])) this.reach("address");
  }

  async call(login, media, turns) {
    const server = { urls: this.url, username: login.user, credential: login.password };
    const configuration = { iceServers: [server], iceTransportPolicy: "relay", bundlePolicy: "max-bundle" };
    const ends = [this.open(configuration), this.open(configuration)];
    const [here, there] = ends;
    const described = resolvers();
    const gathered = ends.map((end, at) => new Promise((resolve) => {
      end.addEventListener("icecandidate", ({ candidate }) => {
        if (!candidate?.candidate) return;
        resolve();
        described.promise.then(() => ends[1 - at].addIceCandidate(candidate)).catch(() => {});
      });
    }));
    const channels = ends.map((end) => ({
      ping: end.createDataChannel("ping", { negotiated: true, id: 0, ordered: false, maxRetransmits: 0 }),
      bulk: end.createDataChannel("bulk", { negotiated: true, id: 1, ordered: false }),
    }));
    const opened = channels.map(({ ping }) => new Promise((resolve) => ping.addEventListener("open", resolve)));
    channels.forEach(({ ping, bulk }) => { ping.binaryType = bulk.binaryType = "arraybuffer"; });
    const senders = ["video", "audio"].map((kind) => ({ kind, sender: here.addTransceiver(kind, { direction: "sendonly" }).sender }));

    await here.setLocalDescription();
    await there.setRemoteDescription(here.localDescription);
    await there.setLocalDescription();
    await here.setRemoteDescription(there.localDescription);
    described.resolve();

    const blocked = pause(BLOCKED_MS).then(() => "blocked");
    if (await Promise.race([Promise.all(gathered), blocked]) === "blocked") return;
    this.reach("allocation");
    if (await Promise.race([Promise.all(opened), blocked]) === "blocked") return;
    this.reach("connection");
    if (!(await this.ping(channels))) return;
    this.reach("round_trip");
    await turns.take(() => this.running && this.burst(channels));
    if (!this.running || !this.kbit) return;
    this.reach("throughput");
    await Promise.all(senders.map(({ kind, sender }) => sender.replaceTrack(media.of(kind))));
    if (await this.seen(there)) this.reach("media");
  }

  /** Sends small packets through the relay and back. Returns whether any came back. */
  async ping([{ ping: here }, { ping: there }]) {
    there.onmessage = ({ data }) => there.readyState === "open" && there.send(data);
    const sent = new Map();
    let back = 0;
    const all = new Promise((resolve) => {
      here.onmessage = ({ data }) => {
        const number = new DataView(data).getUint32(0);
        if (this.trips[number] !== null) return;
        // A packet passes the relay twice: here, relay, here again, and the same way back.
        this.trips[number] = (performance.now() - sent.get(number)) / 2;
        back += 1;
        this.measure(back);
        if (back === PINGS) resolve();
      };
    });
    const start = performance.now();
    for (let number = 0; number < PINGS && this.running; number += 1) {
      await pause(Math.max(0, start + number * PING_EVERY_MS - performance.now()));
      if (here.readyState !== "open") return false;
      const packet = new ArrayBuffer(PING_BYTES);
      new DataView(packet).setUint32(0, number);
      sent.set(number, performance.now());
      this.trips[number] = null;
      here.send(packet);
    }
    await Promise.race([all, pause(PING_REST_MS)]);
    this.measure(back, true);
    return back > 0;
  }

  measure(back, isWhole = false) {
    const trips = this.trips.filter((trip) => trip !== null);
    if (trips.length > 0) this.rtt = median(trips);
    const steps = trips.slice(1).map((trip, at) => Math.abs(trip - trips[at]));
    if (steps.length > 0) this.jitter = steps.reduce((sum, step) => sum + step, 0) / steps.length;
    // Of one way through the relay: the share that gets through there and back is its square.
    if (isWhole) this.loss = 100 * (1 - Math.sqrt(back / PINGS));
    this.changed();
  }

  /** Sends as fast as the connection takes it, for a moment. */
  async burst([{ bulk: here }, { bulk: there }]) {
    let [bytes, first, last] = [0, null, null];
    there.onmessage = ({ data }) => {
      last = performance.now();
      first ??= last;
      bytes += data.byteLength;
      if (last > first) this.kbit = ((bytes - PIECE) * 8) / (last - first);
    };
    here.bufferedAmountLowThreshold = BUFFERED_MAX / 2;
    const piece = new ArrayBuffer(PIECE);
    const end = performance.now() + BURST_MS;
    let given = 0;
    while (performance.now() < end && given < BURST_BYTES_MAX && here.readyState === "open") {
      if (here.bufferedAmount > BUFFERED_MAX) {
        await Promise.race([new Promise((resolve) => { here.onbufferedamountlow = resolve; }), pause(50)]);
      } else {
        here.send(piece);
        given += PIECE;
      }
    }
    while (bytes < given && performance.now() < end) await pause(20);
    this.changed();
  }

  /** Whether pictures arrive at the other end. */
  async seen(there) {
    const end = performance.now() + MEDIA_MS;
    while (performance.now() < end && this.running) {
      for (const entry of (await there.getStats()).values()) {
        const isVideo = entry.type === "inbound-rtp" && entry.kind === "video";
        if (isVideo && (entry.framesDecoded ?? 0) >= MEDIA_FRAMES) return true;
      }
      await pause(100);
    }
    return false;
  }
}

function resolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
