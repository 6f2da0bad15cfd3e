const element = id => document.getElementById(id);
const say = text => { element("message").textContent = text };

// The text for a page that finds no session. It lasts as long as this tab, also over the way to the provider and back.
const NOTICE = "notice";
const ENDED = "Your session has ended. You ended it in another browser, or did not use it for a while.";

// Sends a request with the cookie of the session. Without a session, shows that, and returns nothing.
async function ask(method, path, body) {
  const answer = await fetch(path, { method, body }).catch(() => undefined);
  const endedBefore = answer?.status === 404 && path.startsWith("/v1/auth/sessions/");
  if (answer?.ok || endedBefore) return answer;
  if (answer?.status === 401) {
    const wasSignedIn = !element("signed-in").hidden;
    showSignedOut();
    if (wasSignedIn) element("sign-in").focus();
  } else {
    say(answer ? `That failed (${answer.status}). Please try again.` : "The service cannot be reached.");
  }
}

function show(signedIn) {
  element("signed-out").hidden = signedIn;
  for (const id of ["signed-in", "devices", "me", "api"]) element(id).hidden = !signedIn;
  element("status").textContent = signedIn ? "signed in" : "signed out";
}

function showSignedOut() {
  if (!element("signed-out").hidden) return; // The notice is read once.
  // This page is also the failure page. The endpoint adds an error code from a fixed list to its URL.
  const failed = new URLSearchParams(location.search).get("error");
  say(failed ? `Sign-in failed (${failed}). Please try again.` : sessionStorage.getItem(NOTICE) ?? "");
  sessionStorage.removeItem(NOTICE);
  show(false);
}

async function showSignedIn() {
  const answer = await ask("GET", "/v1/auth/whoami");
  if (!answer) return;
  const me = await answer.json();
  sessionStorage.setItem(NOTICE, ENDED);
  element("name").textContent = me.display_name ?? me.subject;
  element("whoami").replaceChildren(...Object.entries(me).flatMap(([name, value]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name.replaceAll("_", " ");
    text.textContent = Array.isArray(value) ? value.join(", ") || "–" : value;
    return [term, text];
  }));
  await showSessions();
  show(true);
}

async function showSessions() {
  const answer = await ask("GET", "/v1/auth/sessions");
  if (!answer) return;
  const { sessions } = await answer.json();
  sessions.sort((one, other) => other.current - one.current);
  element("sessions").replaceChildren(...sessions.map(entry));
  element("end-others").hidden = sessions.length < 2;
}

function entry({ handle, started_at, used_at, current }) {
  const item = element("session").content.cloneNode(true);
  const [started, used] = [new Date(started_at), new Date(used_at)].map(text);
  item.querySelector("b").textContent = current ? "This browser" : "Another browser";
  item.querySelector(".started").textContent = started;
  item.querySelector(".used").textContent = used;
  const button = item.querySelector("button");
  if (current) button.remove();
  button.setAttribute("aria-label", `End the session of ${started}`);
  button.addEventListener("click", () => end(`/v1/auth/sessions/${handle}`));
  return item;
}

function text(time) {
  return time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

// Ends other sessions. The focus goes to the list, because the button may be gone.
async function end(path) {
  if (!await ask("DELETE", path)) return;
  await showSessions();
  say("Ended. It takes effect there at the next click.");
  element("devices-title").focus();
}

// Ends all sessions here, and then the provider's session in this browser: its page leads back to this one.
async function endAll() {
  const answer = await ask("DELETE", "/v1/auth/sessions");
  if (!answer) return;
  const { ended, end_session_url } = await answer.json();
  sessionStorage.setItem(NOTICE, `You are signed out everywhere. Sessions that ended: ${ended}.`);
  location.assign(end_session_url ?? "/");
}

element("end-others").addEventListener("click", () => end("/v1/auth/sessions?others=true"));
element("end-all").addEventListener("click", endAll);
element("sign-out").form.addEventListener("submit", () => sessionStorage.setItem(NOTICE, "You are signed out."));
element("call").addEventListener("click", async () => {
  const answer = await ask("POST", "/api/notes", "Buy milk");
  if (answer) element("answer").textContent = `${answer.status} ${await answer.text()}`;
});

showSignedIn();
