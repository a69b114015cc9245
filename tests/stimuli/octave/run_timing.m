function run_timing(script, images)
% Run a timing script as MonkeyLogic does: with the eye tracker and the Info field of the condition in its workspace.
eye_ = 1;
Info = struct('trial', 7, 'images', images);
eval(fileread(script));
end
