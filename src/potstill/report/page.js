"use strict";
// Cards on hover, focus and tap: the label of a chart's mark, and both models' predictions for a token.
(() => {
  const card = document.getElementById("card");
  const passages = JSON.parse(document.getElementById("tokens").textContent);
  const make = (tag, name, text) => Object.assign(document.createElement(tag), { className: name, textContent: text });
  const seen = text => text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "∅";
  const percent = p => (p >= 0.9995 ? "100" : p >= 0.1 ? (100 * p).toFixed(1) : (100 * p).toPrecision(2)) + "%";

  function side(name, label, guesses, actual) {
    const box = make("div", "side " + name, "");
    box.append(make("b", "", label));
    for (const [text, probability] of guesses) {
      const line = make("div", text === actual ? "guess actual" : "guess", "");
      const bar = make("i", "", "");
      bar.style.width = 100 * Math.min(1, probability) + "%";
      line.append(bar, make("span", "", seen(text)), make("span", "", percent(probability)));
      box.append(line);
    }
    return box;
  }

  function tokenCard(token) {
    const head = make("p", "head", "");
    head.append(make("b", "", seen(token.text)), ` is the actual token · KL ${token.kl.toFixed(2)} nats`);
    const sides = make("div", "sides", "");
    sides.append(side("teacher", "Teacher", token.teacher, token.text), side("student", "Student", token.student, token.text));
    const chance = nll => (nll === null ? "?" : percent(Math.exp(-nll)));
    const foot = `Its probability: ${chance(token.teacher_nll)} by the teacher, ${chance(token.student_nll)} by the student.`;
    card.replaceChildren(head, sides, make("p", "foot", foot));
    card.className = "wide";
  }

  function spanCard(span) {
    const head = make("p", "head", "");
    const more = span.excess < 0 ? "surprises the student less, by" : "surprises the student more, by";
    head.append(make("b", "", seen(span.text)), ` ${more} ${Math.abs(span.excess).toFixed(2)} nats`);
    const nats = nll => (nll === null ? "?" : `${nll.toFixed(2)} nats`);
    const foot = `Its surprise, −log p: ${nats(span.teacher_nll)} of the teacher, ${nats(span.student_nll)} of the student.`;
    card.replaceChildren(head, make("p", "foot", foot));
    card.className = "wide";
  }

  function place(target, x) {
    card.hidden = false;
    const box = target.getBoundingClientRect();
    const left = Math.min(Math.max(8, (x ?? box.left) - 24), innerWidth - card.offsetWidth - 8);
    const below = box.bottom + 8;
    const fits = below + card.offsetHeight < innerHeight || box.top < card.offsetHeight + 16;
    card.style.left = Math.max(8, left) + "px";
    card.style.top = (fits ? below : box.top - card.offsetHeight - 8) + "px";
  }

  function show(event) {
    const token = event.target.closest?.("[data-token]");
    const mark = event.target.closest?.(".chart .role-mark [aria-label]");
    if (token) {
      const found = passages[token.parentNode.dataset.passage][token.dataset.token];
      (found.excess === undefined ? tokenCard : spanCard)(found);
      place(token);
    } else if (mark) {
      card.replaceChildren(mark.getAttribute("aria-label"));
      card.className = "";
      place(mark, event.clientX);
    } else if (event.type !== "focusin") {
      card.hidden = true;
    }
  }

  function walk(event) {
    const token = event.target.closest?.("[data-token]");
    if (event.key === "Escape") card.hidden = true;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!token || !step) return;
    const tokens = [...token.parentNode.querySelectorAll("[data-token]")];
    const next = tokens[tokens.indexOf(token) + step];
    if (!next) return;
    event.preventDefault();
    token.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, show);
  document.addEventListener("focusout", () => { card.hidden = true; });
  // A focus often scrolls the page: then the card follows its token.
  document.addEventListener("scroll", () => {
    if (document.activeElement.matches("[data-token]")) place(document.activeElement);
    else card.hidden = true;
  }, { passive: true });
  document.addEventListener("keydown", walk);
})();
