// Renders albedo times max(0, normal . light) into the canvas of the page. Directions: x right, y up, z toward the camera.
"use strict";
const element = (id) => document.getElementById(id);
const surface = JSON.parse(element("surface").textContent);
const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
const albedo = new Uint16Array(decode(surface.albedo)); // 65535 is the largest albedo
const normals = new Int16Array(decode(surface.normals)); // x, y, z of a pixel; 32767 is 1
const canvas = element("relit");
const context = canvas.getContext("2d");
const image = context.createImageData(surface.width, surface.height);
const radians = Math.PI / 180;

function lightDirection(azimuth, elevation) {
  const [a, e] = [azimuth * radians, elevation * radians];
  return [-Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
}

function describe(azimuth, elevation) {
  const sides = [];
  if (azimuth) sides.push(azimuth > 0 ? "the left" : "the right");
  if (elevation) sides.push(elevation > 0 ? "above" : "below");
  return sides.length ? `light from ${sides.join(" and ")}` : "light from the camera";
}

function render() {
  const azimuth = Number(element("azimuth").value);
  const elevation = Number(element("elevation").value);
  const [x, y, z] = lightDirection(azimuth, elevation);
  const shapeOnly = element("shape").checked;
  const albedoScale = 255 / (surface.white * 65535); // surface.white: share of the largest albedo that is shown white
  for (let pixel = 0; pixel < albedo.length; pixel++) {
    const cosine = (normals[3 * pixel] * x + normals[3 * pixel + 1] * y + normals[3 * pixel + 2] * z) / 32767;
    const bright = shapeOnly ? (albedo[pixel] ? 255 : 0) : albedo[pixel] * albedoScale;
    const value = Math.max(0, cosine) * bright; // ImageData rounds, and limits to 255
    image.data[4 * pixel] = image.data[4 * pixel + 1] = image.data[4 * pixel + 2] = value;
    image.data[4 * pixel + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  element("azimuth_value").textContent = `${azimuth}°`;
  element("elevation_value").textContent = `${elevation}°`;
  element("light").textContent = describe(azimuth, elevation);
}

// The canvas is the front of a ball that the pointer touches: the light comes from the direction of the ball's normal there.
function point(event) {
  const box = canvas.getBoundingClientRect();
  let x = (2 * (event.clientX - box.left)) / box.width - 1;
  let y = 1 - (2 * (event.clientY - box.top)) / box.height;
  const radius = Math.hypot(x, y);
  if (radius > 1) [x, y] = [x / radius, y / radius];
  const z = Math.sqrt(Math.max(0, 1 - x * x - y * y));
  element("elevation").value = Math.round(Math.asin(y) / radians);
  element("azimuth").value = Math.round(Math.atan2(-x, z) / radians);
  render();
}

for (const id of ["azimuth", "elevation", "shape"]) element(id).addEventListener("input", render);
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  point(event);
});
canvas.addEventListener("pointermove", (event) => event.buttons && point(event));
render();
