// Two peers in one page, each allowed relayed candidates only: a data channel there and back, video one way.
async function call(iceServers) {
  const problems = [];
  const peers = [0, 1].map(() => new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' }));
  const [caller, callee] = peers;
  const failed = new Promise((resolve) => {
    peers.forEach((peer, index) => {
      const other = peers[1 - index];
      peer.onicecandidate = ({ candidate }) => candidate && other.addIceCandidate(candidate);
      peer.onicecandidateerror = (e) => problems.push(`${e.url} ${e.errorCode} ${e.errorText}`);
      peer.oniceconnectionstatechange = () => peer.iceConnectionState === 'failed' && resolve('ICE failed');
    });
    setTimeout(() => resolve('nothing more after 30 s'), 30000);
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

  const done = (async () => {
    const echo = await echoed;
    for (;;) {
      const ends = await Promise.all(peers.map(facts));
      if (ends[1].framesDecoded >= 30) return { echo, caller: ends[0], callee: ends[1] };
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  const result = await Promise.race([done, failed.then((error) => ({ error, problems }))]);
  if (result.error) Object.assign(result, { states: peers.map((peer) => peer.iceConnectionState) });
  return result;
}

// The selected pair of one end, and how far its video came.
async function facts(peer) {
  const all = [...(await peer.getStats()).values()];
  const byId = (id) => all.find((entry) => entry.id === id);
  const transport = all.find((entry) => entry.type === 'transport');
  const pair = transport && byId(transport.selectedCandidatePairId);
  if (!pair) return {};
  const local = byId(pair.localCandidateId);
  const remote = byId(pair.remoteCandidateId);
  const video = all.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
  return {
    localType: local.candidateType,
    remoteType: remote.candidateType,
    relayProtocol: local.relayProtocol,
    bytesReceived: pair.bytesReceived,
    framesDecoded: video ? video.framesDecoded : 0,
  };
}
