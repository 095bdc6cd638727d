(() => {
  "use strict";
  const byId = (name) => document.getElementById(name);
  const controls = document.querySelector(".controls");
  const cards = Array.from(document.querySelectorAll(".card"));
  const fields = ["by-group", "by-state", "by-score", "by-text"].map(byId);
  const [group, state, score, text] = fields;
  const worth = (card) => (card.dataset.score === "" ? null : Number(card.dataset.score));
  const order = (one, other) => {
    const [a, b] = [worth(one), worth(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return score.value === "up" ? a - b : b - a;
  };
  const show = () => {
    const words = text.value.toLowerCase();
    let shown = 0;
    for (const card of cards) {
      card.hidden = Boolean(
        (group.value && card.dataset.group !== group.value) ||
        (state.value && card.dataset.state !== state.value) ||
        (words && !card.textContent.toLowerCase().includes(words)));
      shown += !card.hidden;
    }
    byId("cards").append(...cards.sort(order));
    byId("shown").textContent = shown + " of " + cards.length;
  };
  controls.addEventListener("submit", (event) => event.preventDefault());
  for (const field of fields) field.addEventListener("input", show);
  controls.hidden = false;
  show();
})();
