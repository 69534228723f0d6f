// Two peers in one page, each allowed relayed candidates only: a data channel there and back, video one way.
// `page`: a URL, fetched 20 times meanwhile. `restarts`: how often the network cuts the call; ICE restarts after each cut.
async function call(iceServers, { page, restarts = 0, limit = 30000 } = {}) {
  const problems = [];
  const began = Date.now();
  let fetchProblem = null;
  // The progress, reported if the call does not finish.
  const state = {};
  const peers = [0, 1].map(() => new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' }));
  const [caller, callee] = peers;
  const failed = new Promise((resolve) => {
    peers.forEach((peer, index) => {
      const other = peers[1 - index];
      peer.onicecandidate = ({ candidate }) => candidate && other.addIceCandidate(candidate);
      peer.onicecandidateerror = (e) => problems.push(`${e.url} ${e.errorCode} ${e.errorText}`);
      peer.oniceconnectionstatechange = () => !restarts && peer.iceConnectionState === 'failed' && resolve('ICE failed');
    });
    setTimeout(() => resolve(`not finished after ${limit} ms`), limit);
  });

  const channel = caller.createDataChannel('data');
  channel.onopen = () => channel.send('round trip');
  callee.ondatachannel = ({ channel }) => { channel.onmessage = ({ data }) => channel.send(data); };
  const echoed = new Promise((resolve) => { channel.onmessage = ({ data }) => resolve(data); });

  const stream = await navigator.mediaDevices.getUserMedia({ video: true });
  stream.getTracks().forEach((track) => caller.addTrack(track, stream));
  const video = document.createElement('video');
  video.muted = true;
  callee.ontrack = ({ streams }) => { video.srcObject = streams[0]; video.play(); };

  await caller.setLocalDescription();
  await callee.setRemoteDescription(caller.localDescription);
  await callee.setLocalDescription();
  await caller.setRemoteDescription(callee.localDescription);

  let fetched = 0;
  const fetching = (async () => {
    while (page && fetched < 20) {
      await fetch(page, { mode: 'no-cors', cache: 'no-store' });
      fetched += 1;
    }
  })().catch((error) => { fetchProblem = `${error}`; });

  const done = (async () => {
    const echo = await echoed;
    let frames = 0;
    let cuts = 0;
    Object.defineProperty(state, 'cuts', { get: () => [cuts, atCut, cutAt && Date.now() - cutAt, resumed] });
    let atCut = 0;
    let cutAt = 0;
    const resumed = [];
    for (;;) {
      const ends = await Promise.all(peers.map(facts));
      // A call that was cut has no selected pair for a moment.
      frames = ends[1].framesDecoded ?? frames;
      const cut = peers.some(({ iceConnectionState: state }) => state === 'disconnected' || state === 'failed');
      if (cutAt && frames > atCut + 5) {
        resumed.push(Date.now() - cutAt);
        cutAt = 0;
      } else if (cut && !cutAt && cuts < restarts) {
        [cuts, atCut, cutAt] = [cuts + 1, frames, Date.now()];
        caller.restartIce();
        await caller.setLocalDescription();
        await callee.setRemoteDescription(caller.localDescription);
        await callee.setLocalDescription();
        await caller.setRemoteDescription(callee.localDescription);
      }
      if (frames >= 30 && resumed.length >= restarts) {
        await fetching;
        return { echo, caller: ends[0], callee: ends[1], fetched, fetchProblem, problems, resumed, took: Date.now() - began };
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  const result = await Promise.race([done, failed.then((error) => ({ error, problems }))]);
  if (result.error) {
    const ends = await Promise.all(peers.map(facts));
    Object.assign(result, { states: peers.map((peer) => peer.iceConnectionState), cuts: state.cuts, ends });
  }
  return result;
}

// Returns the selected pair of one end, and how many video frames it has decoded.
async function facts(peer) {
  const all = [...(await peer.getStats()).values()];
  const byId = (id) => all.find((entry) => entry.id === id);
  const transport = all.find((entry) => entry.type === 'transport');
  const pair = transport
    ? byId(transport.selectedCandidatePairId)
    : all.find((entry) => entry.type === 'candidate-pair' && entry.selected);
  if (!pair) return {};
  const local = byId(pair.localCandidateId);
  const remote = byId(pair.remoteCandidateId);
  const video = all.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
  return {
    localType: local.candidateType,
    remoteType: remote.candidateType,
    localAddress: local.address,
    relayProtocol: local.relayProtocol,
    bytesReceived: pair.bytesReceived,
    framesDecoded: video ? video.framesDecoded : 0,
  };
}
