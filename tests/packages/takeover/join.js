// As BigBlueButton's client does. Needs call.js.
async function servers() {
  const answer = await (await fetch('/bigbluebutton/api/stuns?sessionToken=pupil', { cache: 'no-cache' })).json();
  return answer.turnServers.map(({ url, username, password }) => ({ urls: url, username, credential: password }));
}

// Makes a call through each of the servers alone, all at once.
async function join() {
  const one = async (server) => ({ url: server.urls, ...(await call([server])) });
  return { rungs: await Promise.all((await servers()).map(one)) };
}

// Starts a call through all servers that goes on: when it is cut, ICE restarts, as in BigBlueButton. Returns once video flows.
async function begin() {
  const peers = [];
  const Native = RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      peers.push(this);
    }
  };
  window.running = call(await servers(), { restarts: 1, limit: 60000 });
  window.running.catch(() => {});
  while (!(peers[1] && (await facts(peers[1])).framesDecoded)) await new Promise((resolve) => setTimeout(resolve, 50));
  window.RTCPeerConnection = Native;
  return true;
}
