// Moving pictures and a tone that need no camera and no microphone.
const WIDTH = 160;
const HEIGHT = 120;
const FRAMES_PER_SECOND = 12;

export class Media {
  constructor() {
    this.canvas = document.createElement("canvas");
    [this.canvas.width, this.canvas.height] = [WIDTH, HEIGHT];
    this.pen = this.canvas.getContext("2d");
    this.frame = 0;
    this.draw();
    this.timer = setInterval(() => this.draw(), 1000 / FRAMES_PER_SECOND);
    this.tracks = this.canvas.captureStream(FRAMES_PER_SECOND).getVideoTracks();
    // Browsers allow sound only after the visitor has pressed something.
    if (navigator.userActivation?.hasBeenActive) this.addTone();
  }

  draw() {
    this.frame += 1;
    for (let at = 0; at < 8; at += 1) {
      this.pen.fillStyle = `hsl(${(this.frame * 9 + at * 45) % 360} 70% 50%)`;
      this.pen.fillRect(at * (WIDTH / 8), (this.frame * 3 + at * 11) % HEIGHT, WIDTH / 8, HEIGHT / 2);
    }
  }

  addTone() {
    this.sound = new AudioContext();
    const tone = this.sound.createOscillator();
    const out = this.sound.createMediaStreamDestination();
    tone.connect(out);
    tone.start();
    this.tracks.push(...out.stream.getAudioTracks());
  }

  of(kind) {
    return this.tracks.find((track) => track.kind === kind) ?? null;
  }

  stop() {
    clearInterval(this.timer);
    this.tracks.forEach((track) => track.stop());
    this.sound?.close();
  }
}
